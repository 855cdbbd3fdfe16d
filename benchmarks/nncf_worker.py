"""The fresh process that times engines against each other: ``python -m benchmarks.nncf_worker '<json>'``.

Every side is an OpenVINO IR, compiled with the same properties and called through a bare request whose input tensor was
set once. Nothing but OpenVINO, numpy and edgekit's harness is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._pyopenvino import CompiledModel

from benchmarks.fresh import answer
from edgekit.bench import WarmUpRules, interleave, warm_up

__all__ = ["PROPERTIES"]

_PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "fp32"}

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class Side:
    """One engine, ready to be called."""

    def __init__(self, core: ov.Core, path: Path, image: np.ndarray, pixels: np.ndarray, threads: int) -> None:
        properties = PROPERTIES | {"INFERENCE_NUM_THREADS": threads}
        self.compiled = core.compile_model(core.read_model(path), "CPU", properties)
        raw = self.compiled.input(0).get_element_type() == ov.Type.u8
        self.tensor = ov.Tensor(image if raw else pixels, shared_memory=True)
        self.request = CompiledModel.create_infer_request(self.compiled)
        self.request.set_input_tensor(self.tensor)

    def call(self) -> Callable[[], object]:
        """Returns the timed call."""
        return lambda: self.request.infer({}, True, False)

    def facts(self) -> dict[str, Any]:
        """Returns what really runs: convolutions by precision, nodes, and the properties in force."""
        operations = [operation.get_rt_info() for operation in self.compiled.get_runtime_model().get_ops()]
        kinds = [(_text(info["layerType"]), _text(info["runtimePrecision"])) for info in operations]
        precisions = [_PRECISIONS.get(precision, precision) for kind, precision in kinds if kind == "Convolution"]
        return {
            "convolutions": {name: precisions.count(name) for name in sorted(set(precisions))},
            "nodes": sum(kind not in ("Const", "Constant", "Input", "Output") for kind, _ in kinds),
            "properties": {
                name: _text(self.compiled.get_property(name))
                for name in (*PROPERTIES, "INFERENCE_NUM_THREADS", "NUM_STREAMS")
            },
        }


def _text(value: Any) -> str:
    if isinstance(value, ov.Type):
        return str(value.get_type_name())
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def main(task: dict[str, Any]) -> None:
    inputs = np.load(task["inputs"])
    core = ov.Core()
    sides = {
        name: Side(core, Path(path), inputs["image"], inputs["pixels"], task["threads"]) for name, path in task["sides"]
    }
    calls = {name: side.call() for name, side in sides.items()}
    rules = WarmUpRules(min_s=task["warm_up_s"], max_s=10 * task["warm_up_s"])
    stable = {name: warm_up(call, rules).stable for name, call in calls.items()}
    samples = interleave(
        calls, blocks=task["blocks"], per_visit=task["calls"], seed=task["seed"], settle=task["settle"]
    )
    answer(
        {
            "median_us": {name: float(np.median(times)) / 1e3 for name, times in samples.items()},
            "block_medians_us": {name: (np.median(times, axis=1) / 1e3).tolist() for name, times in samples.items()},
            "stable": stable,
            "facts": {name: side.facts() for name, side in sides.items()},
        }
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
