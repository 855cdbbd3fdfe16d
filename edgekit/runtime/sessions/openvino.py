"""OpenVINO sessions: CPU, and GPU and NPU by the same code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino._pyopenvino import CompiledModel as RawCompiledModel

from edgekit.config import from_dict
from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.files import user_cache_folder
from edgekit.runtime.session import Ticket
from edgekit.runtime.sessions.feeds import FeedCheck
from edgekit.runtime.sessions.requests import PendingTicket, RequestPool
from edgekit.tensorspec import LayerRecord, TensorSpec

__all__ = ["OpenVinoSession", "devices", "open_engine"]

Array = npt.NDArray[Any]
Outputs = dict[str, npt.NDArray[Any]]

_PRECISIONS = {"u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4", "f16": "fp16", "f32": "fp32", "f64": "fp64"}

# Source: OpenVINO, src/plugins/intel_cpu/src/cpu_types.cpp (names of layer types), and the GPU plugin's for Gemm.
_COMPUTE_KINDS = frozenset(
    {
        "AUGRUCell",
        "AUGRUSequence",
        "BinaryConvolution",
        "Convolution",
        "Deconvolution",
        "DeformableConvolution",
        "FullyConnected",
        "GRUCell",
        "GRUSequence",
        "Gemm",
        "LSTMCell",
        "LSTMSequence",
        "MatMul",
        "RNNCell",
        "RNNSeq",
        "ScaledDotProductAttention",
    }
)
_NOT_EXECUTED_KINDS = frozenset({"Const", "Constant", "Input", "Output", "Parameter", "Result"})

_DESCRIBED = ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS")


@dataclass(frozen=True, kw_only=True)
class _Options:
    """An engine's options.

    Attributes:
        device: OpenVINO's device name.
        properties: Compile properties.
        cache: Whether compiling takes so long that the compiled model is worth keeping on disk.
    """

    device: str
    properties: dict[str, Any] = field(default_factory=dict)
    cache: bool = False


def devices() -> tuple[str, ...]:
    """Returns the devices that OpenVINO finds: ``CPU``, ``GPU`` or ``GPU.0``, ``NPU``."""
    return tuple(openvino.Core().available_devices)


def open_engine(
    files: Mapping[str, bytes],
    options: Mapping[str, Any],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    threads: int | None,
    streams: int | None,
    cache_dir: Path | None,
    cuda_graphs: bool,
) -> OpenVinoSession:
    """Compiles an IR for its device; see :func:`edgekit.runtime.sessions.open_session`.

    Args:
        files: ``xml`` and ``bin``.
        options: ``device``, ``properties`` and ``cache``.
        inputs, outputs: The interface that the engine must have.
        threads: ``INFERENCE_NUM_THREADS``; only CPUs have it.
        streams: ``NUM_STREAMS``.
        cache_dir: ``CACHE_DIR``.
        cuda_graphs: Not used: OpenVINO's devices have none.

    Raises:
        BackendMissing: The device is not on this machine.
        UserError: Threads for a device other than a CPU, or an unusable cache folder.
        StageError: OpenVINO refuses the engine, or its interface is another.
    """
    table = from_dict(_Options, options, where="engine options")
    core = openvino.Core()
    available = core.available_devices
    if not any(name == table.device or name.startswith(f"{table.device}.") for name in available):
        raise BackendMissing(
            f"OpenVINO finds no {table.device} on this machine, only {', '.join(available)}",
            hint="install the device's driver, or compile for a target that this machine has",
        )
    properties = dict(table.properties)
    if threads is not None:
        if table.device != "CPU":
            raise UserError(f"threads: this engine runs on {table.device}, which has no such setting")
        properties["INFERENCE_NUM_THREADS"] = threads
    if streams is not None:
        properties["NUM_STREAMS"] = streams
    cache = _cache_folder(cache_dir, wanted=table.cache)
    if cache is not None:
        properties["CACHE_DIR"] = str(cache)
    try:
        model = core.read_model(model=files["xml"], weights=files["bin"])
        compiled = core.compile_model(model, table.device, properties)
    except RuntimeError as error:
        raise StageError(
            f"OpenVINO {openvino.__version__} cannot compile this engine for {table.device} with {properties}: "
            f"{_first_lines(error)}"
        ) from error
    return OpenVinoSession(compiled, inputs, outputs, device=str(core.get_property(table.device, "FULL_DEVICE_NAME")))


class OpenVinoSession:
    """A compiled OpenVINO model; see :class:`edgekit.runtime.session.Session`.

    Feeds are not copied where they are contiguous and writable, outputs are copied once.

    Args:
        compiled: The compiled model.
        inputs, outputs: The interface that it must have.
        device: The device's full name, for reports.

    Raises:
        StageError: Its interface is another.
    """

    def __init__(
        self, compiled: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *, device: str
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._check = FeedCheck(
            inputs, order=_order(compiled.inputs, inputs, "input"), largest_batch=_largest_batch(compiled.inputs)
        )
        self._output_places = tuple(
            zip((o.name for o in outputs), _order(compiled.outputs, outputs, "output"), strict=True)
        )
        # One more than run at once: the next inference waits inside the engine, so that it never idles.
        self.in_flight = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1
        self._compiled: Any = compiled
        self._device = device
        # Raw requests: the Python class around them dispatches on its arguments for 10 to 20 us a call.
        requests = [RawCompiledModel.create_infer_request(compiled) for _ in range(self.in_flight)]
        self._pool: RequestPool[Any, Outputs] = RequestPool(requests)

    def infer(self, feeds: Mapping[str, Array]) -> Outputs:
        """Runs the engine once; see :meth:`edgekit.runtime.session.Session.infer`.

        Raises:
            UserError: Unknown or missing input, wrong dtype or shape, or a closed session.
            StageError: OpenVINO failed.
        """
        arrays = self._check.arrays(feeds)
        request = self._pool.acquire()
        try:
            if len(arrays) == 1:
                results = request.infer(openvino.Tensor(arrays[0], True), False, False)
            else:
                results = request.infer(_tensors(arrays), False, False)
        except RuntimeError as error:
            raise self._failure(error) from error
        finally:
            self._pool.release(request)
        values = tuple(results.values())
        return {name: values[place] for name, place in self._output_places}

    def submit(self, feeds: Mapping[str, Array]) -> Ticket:
        """Starts an inference; the arrays must stay as they are until it is collected."""
        arrays = self._check.arrays(feeds)
        request = self._pool.acquire()
        try:
            request.start_async(_tensors(arrays), None)
        except RuntimeError as error:
            self._pool.release(request)
            raise self._failure(error) from error
        return self._pool.start(request, self._finish, arrays)

    def collect(self, ticket: Ticket) -> Outputs:
        """Waits for a submitted inference and returns its outputs.

        Raises:
            UserError: Not a ticket of a session, or redeemed before.
            StageError: OpenVINO failed.
        """
        if not isinstance(ticket, PendingTicket) or ticket.pool is not self._pool:
            raise UserError(f"collect: expected a ticket of this session's submit, got {type(ticket).__name__}")
        return self._pool.collect(ticket)

    def layers(self) -> tuple[LayerRecord, ...]:
        """What really runs inside, in execution order, with its precision."""
        operations = [(op, _facts(op)) for op in self._runtime_ops()]
        operations.sort(key=lambda item: int(item[1].get("execOrder", "0")))
        return tuple(
            _layer_record(op.get_friendly_name(), facts)
            for op, facts in operations
            if facts.get("layerType", "") not in _NOT_EXECUTED_KINDS
        )

    def layer_seconds(self, feeds: Mapping[str, Array], *, runs: int) -> dict[str, float]:
        """Runs the engine and returns the time of each layer by its name, on average without disturbed runs.

        The engine must have been compiled with ``PERF_COUNT``; layers that are fused into others take no time.
        """
        arrays = _tensors(self._check.arrays(feeds))
        operations = {op.get_friendly_name(): _facts(op) for op in self._runtime_ops()}
        names = {friendly: _layer_record(friendly, facts).name for friendly, facts in operations.items()}
        samples: dict[str, list[float]] = {}
        request = self._pool.acquire()
        try:
            for _ in range(runs):
                request.infer(arrays, False, False)
                for item in request.get_profiling_info():
                    if item.node_name in names:
                        seconds = item.real_time.total_seconds()
                        samples.setdefault(names[item.node_name], []).append(seconds)
        except RuntimeError as error:
            raise self._failure(error) from error
        finally:
            self._pool.release(request)
        return {name: _undisturbed(values) for name, values in samples.items()}

    def describe(self) -> dict[str, str]:
        """Facts for reports."""
        compiled = self._open()
        facts = {"backend": f"OpenVINO {openvino.__version__}", "device": self._device}
        supported = set(compiled.get_property("SUPPORTED_PROPERTIES"))
        for name in _DESCRIBED:
            if name in supported:
                facts[name.lower()] = _text(compiled.get_property(name))
        return facts

    def close(self) -> None:
        """Frees the engine. A second call does nothing."""
        if self._pool.close():
            self._compiled = None

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self, request: Any) -> Outputs:
        try:
            request.wait()
        except RuntimeError as error:
            raise self._failure(error) from error
        return {name: np.array(request.get_output_tensor(place).data) for name, place in self._output_places}

    def _runtime_ops(self) -> list[Any]:
        operations: list[Any] = self._open().get_runtime_model().get_ordered_ops()
        return operations

    def _open(self) -> Any:
        if self._compiled is None:
            raise UserError("this model is closed", hint="load the bundle again")
        return self._compiled

    def _failure(self, error: RuntimeError) -> StageError:
        return StageError(f"OpenVINO failed on {self._device}: {_first_lines(error)}")


def _tensors(arrays: tuple[Array, ...]) -> dict[int, Any]:
    return {index: openvino.Tensor(array, True) for index, array in enumerate(arrays)}


def _largest_batch(ports: list[Any]) -> int | None:
    """Returns the bound that the engine states for a dynamic batch, or None where it states none."""
    shapes = [port.get_partial_shape() for port in ports]
    bounds = [shape[0].get_max_length() for shape in shapes if shape.rank.get_length() and shape[0].is_dynamic]
    stated = [bound for bound in bounds if bound > 0]
    return min(stated) if stated else None


def _order(ports: list[Any], specs: tuple[TensorSpec, ...], what: str) -> tuple[int, ...]:
    """Returns the place of each spec among the engine's ports, and checks that it is what the spec says."""
    names = [port.get_names() for port in ports]
    places = []
    for spec in specs:
        matches = [index for index, found in enumerate(names) if spec.name in found]
        if len(matches) != 1 or len(ports) != len(specs):
            have = ", ".join("/".join(sorted(found)) for found in names)
            want = ", ".join(item.name for item in specs)
            raise StageError(f"the engine's {what}s are {have}; the bundle says {want}")
        port = ports[matches[0]]
        dtype = np.dtype(port.get_element_type().to_dtype()).name
        shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
        if dtype != spec.dtype or shape != spec.shape:
            raise StageError(
                f"{what} '{spec.name}': the engine has {dtype} {shape}; the bundle says {spec.dtype} {spec.shape}"
            )
        places.append(matches[0])
    return tuple(places)


def _layer_record(friendly: str, facts: Mapping[str, str]) -> LayerRecord:
    originals = [name for name in facts.get("originalLayersNames", "").split(",") if name]
    kind = facts.get("layerType", "unknown")
    precision = facts.get("runtimePrecision", "unknown").lower()
    name = friendly if friendly in originals or not originals else originals[0]
    return LayerRecord(
        # The IR calls a matrix product with bias `fc/MatMul`; in int8 OpenVINO appends to that, in float it says `fc`.
        name=name.removesuffix("/DequantizationMultiply").removesuffix("/MatMul"),
        kind=kind,
        precision=_PRECISIONS.get(precision, precision),
        compute=kind in _COMPUTE_KINDS,
    )


def _facts(op: Any) -> dict[str, str]:
    return {key: _text(value) for key, value in op.get_rt_info().items()}


def _undisturbed(values: list[float]) -> float:
    """The mean of values that are not far above the median, which alone is coarse: counters have steps of 1 us."""
    bound = 1.5 * float(np.median(values))
    return float(np.mean([value for value in values if value <= bound]))


def _text(value: Any) -> str:
    if isinstance(value, openvino.Type):
        return str(value.get_type_name())
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def _first_lines(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join((wanted if wanted else lines)[:3])


def _cache_folder(given: Path | None, *, wanted: bool) -> Path | None:
    """Returns the folder for compiled engines, made where it is not there."""
    if given is None and not wanted:
        return None
    folder = user_cache_folder() / "openvino" if given is None else given
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cache folder {folder}: cannot be made: {error.strerror}"
        if given is not None:
            raise UserError(message, hint="give another cache_dir, or none") from error
        warnings.warn(f"{message}; the engine is compiled anew each time", RuntimeWarning, stacklevel=2)
        return None
    return folder
