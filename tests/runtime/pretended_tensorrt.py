"""A TensorRT without a GPU: what a session uses of it, computed on the pretended GPU's memory."""

from __future__ import annotations

import base64
import enum
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.runtime.nvidia import Gpu, at, pretended_module

Network = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def plan(
    inputs: Mapping[str, tuple[str, tuple[int, ...]]], outputs: Mapping[str, tuple[str, tuple[int, ...]]]
) -> bytes:
    """A plan that the pretended library takes; -1 is the dynamic batch."""
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode()


def tensorrt(
    gpu: Gpu, name: str, network: Network | None, *, layers: str = "{}", version: str = "1.7.1.116"
) -> dict[str, ModuleType]:
    """A module like ``tensorrt``.

    As in TensorRT-RTX, its contexts need kernels that are compiled, or come from a runtime cache: one for the engine
    when the context is made, one for each batch size when it runs; ``compiled`` of the module counts them. A cache is
    of this very version and GPU, and kept by ``json``. As in TensorRT, a context must run once before it is captured.

    Its engines compute ``network`` on the GPU's memory; where that is None, the graph that is in the plan.
    """

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class TensorIOMode(enum.Enum):
        INPUT, OUTPUT = range(2)

    compiled: list[str] = []
    strategies: list[str | None] = []
    home = {"version": version, "driver": "13.1"}

    class RuntimeCache:
        def __init__(self) -> None:
            self._kernels: list[str] = []

        def serialize(self) -> bytes:
            return json.dumps({**home, "kernels": self._kernels}).encode()

        def deserialize(self, data: bytes) -> bool:
            if not gpu.contexts:
                return False
            try:
                found = json.loads(data)
            except ValueError:
                found = {}
            if {key: found.get(key) for key in home} != home:
                gpu.logger.log(ILogger.ERROR, "the runtime cache is of another environment")
                return False
            self._kernels = found["kernels"]
            return True

    class RuntimeConfig:
        cuda_graph_strategy: str | None = None

        def __init__(self) -> None:
            self._cache: RuntimeCache | None = None

        def create_runtime_cache(self) -> RuntimeCache:
            return RuntimeCache()

        def set_runtime_cache(self, cache: RuntimeCache) -> bool:
            self._cache = cache
            return True

    class Context:
        def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
            self._engine = engine
            cache = None if config is None else config._cache
            strategies.append(None if config is None else config.cuda_graph_strategy)
            self._known = [] if cache is None else cache._kernels
            self._compile("engine")
            self._ran = False
            self._addresses: dict[str, int] = {}
            self._batch = 1

        def _compile(self, kernel: str) -> None:
            if kernel not in self._known:
                self._known.append(kernel)
                compiled.append(kernel)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._ran = False
            self._batch = shape[0]
            return True

        def get_tensor_shape(self, name: str) -> list[int]:
            return [self._batch if size == -1 else size for size in self._engine.get_tensor_shape(name)]

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = gpu.mapped.get(address, address)
            return self._addresses[name] in gpu.live

        def execute_async_v3(self, stream: int) -> bool:
            if not gpu.contexts:
                return False
            if (module.uncapturable or not self._ran) and gpu.invalidate(stream):  # type: ignore[attr-defined]
                gpu.logger.log(ILogger.ERROR, "operation not permitted when stream is capturing")
                return False
            self._ran = True
            shapes = {name: tuple(self.get_tensor_shape(name)) for name in self._addresses}
            self._compile(f"batch {self._batch}")

            def work() -> None:
                arrays = {
                    name: at(address, self._engine.get_tensor_dtype(name), shapes[name])
                    for name, address in self._addresses.items()
                }
                given = {key: arrays[key].copy() for key in self._engine.inputs}
                for name, value in self._engine._network(given).items():
                    arrays[name][...] = value

            gpu.enqueue(stream, work)
            return True

    class Inspector:
        def get_engine_information(self, form: str) -> str:
            return layers

    class Engine:
        def __init__(self, inputs: dict[str, Any], outputs: dict[str, Any], graph: str = "") -> None:
            self.inputs, self._tensors = list(inputs), {**inputs, **outputs}
            self._network = network if network is not None else graph_network(base64.b64decode(graph))

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> str:
            return str(self._tensors[name][0])

        def get_tensor_shape(self, name: str) -> list[int]:
            return list(self._tensors[name][1])

        def create_execution_context(self, runtime_config: RuntimeConfig | None = None) -> Context:
            return Context(self, runtime_config)

        def create_runtime_config(self) -> RuntimeConfig:
            return RuntimeConfig()

        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = gpu.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            try:
                return Engine(**json.loads(data))
            except ValueError:
                self._logger.log(ILogger.ERROR, "the header is not mine")
                return None

    module = pretended_module(
        name,
        __version__=version,
        compiled=compiled,
        uncapturable=False,
        CudaGraphStrategy=SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole graph"),
        strategies=strategies,
        ILogger=ILogger,
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        Runtime=Runtime,
        TensorIOMode=TensorIOMode,
        nptype=np.dtype,
    )
    # For the test that the real library has what is used here.
    module.used = {
        "ICudaEngine": Engine,
        "IExecutionContext": Context,
        "Runtime": Runtime,
        "EngineInspector": Inspector,
        "IRuntimeCache": RuntimeCache,
        "IRuntimeConfig": RuntimeConfig,
    }  # type: ignore[attr-defined]
    return {name: module}


def graph_network(graph: bytes) -> Network:
    """Runs a graph with ONNX Runtime, any optimization off.

    ``SLOW_INT8`` and ``WRONG_INT8`` in the environment spoil what is int8.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    names = [item.name for item in session.get_outputs()]
    is_int8 = b"QuantizeLinear" in graph

    def run(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        values = session.run(None, dict(arrays))
        if is_int8 and os.environ.get("SLOW_INT8"):
            time.sleep(0.005)
        if is_int8 and os.environ.get("WRONG_INT8"):
            values = [value + 1 for value in values]
        return dict(zip(names, values, strict=True))

    return run


def stand_in_builder(folder: Path, package: str) -> None:
    """Puts the library of the builder's process where it is imported from: ``stand_in_library.py`` under that name."""
    source = Path(__file__).with_name("stand_in_library.py").read_text(encoding="utf-8")
    (folder / f"{package}.py").write_text(source, encoding="utf-8")
