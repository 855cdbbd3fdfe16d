"""Sessions of TensorRT and TensorRT-RTX: one stream, one execution context and page-locked buffers for each request."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import StageError, UserError
from edgekit.runtime.cuda import CudaDevice, device_facts, open_device
from edgekit.runtime.session import Ticket
from edgekit.runtime.sessions.feeds import FeedCheck
from edgekit.runtime.sessions.requests import PendingTicket, RequestPool
from edgekit.runtime.sessions.tensorrt_buffers import Buffers
from edgekit.runtime.sessions.tensorrt_graphs import GraphCapture
from edgekit.runtime.sessions.tensorrt_kernels import CompiledKernels
from edgekit.runtime.sessions.tensorrt_layers import layer_records
from edgekit.runtime.sessions.tensorrt_request import Request
from edgekit.runtime.tensorrt import FLAVOURS, Flavour, Messages
from edgekit.runtime.tensorrt.engines import kernel_cache
from edgekit.runtime.tensorrt.learned import LearnedCache
from edgekit.tensorspec import LayerRecord, TensorSpec

__all__ = ["TensorRtSession", "devices", "open_engine"]

Array = npt.NDArray[Any]
Outputs = dict[str, npt.NDArray[Any]]


def devices(kind: str) -> tuple[str, ...]:
    """Returns the GPUs, as ``GPU.0``, ``GPU.1``.

    Raises:
        BackendMissing: There is no way to the driver, no driver, or no GPU.
    """
    return tuple(f"GPU.{index}" for index, _ in enumerate(device_facts()))


def open_engine(
    kind: str,
    files: Mapping[str, bytes],
    options: Mapping[str, Any],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    threads: int | None,
    streams: int | None,
    cache_dir: Path | None,
    cuda_graphs: bool,
) -> TensorRtSession:
    """Deserializes a plan, which can run code, on the first GPU; see :func:`edgekit.runtime.sessions.open_session`.

    Args:
        kind: Says which of the two libraries.
        files: ``plan``.
        options: ``batch``: smallest, best and largest batch; ``builder``: what built the plan, where that is known.
        inputs, outputs: The interface that the engine must have.
        threads: Refused: a GPU has no such setting.
        streams: Inferences that run side by side; one is the default.
        cache_dir: Where the kernels that TensorRT-RTX compiles are kept; None: in the user's cache folder.
        cuda_graphs: Launch inferences as CUDA graphs where that is possible.

    Raises:
        BackendMissing: The library, the driver or the GPU is missing.
        UserError: Threads were given.
        StageError: The library refuses the plan, or its interface is another.
    """
    flavour = FLAVOURS[kind]
    if threads is not None:
        raise UserError(f"threads: this engine runs on a GPU by {flavour.title}, which has no such setting")
    library = flavour.library()
    device = open_device()
    try:
        return TensorRtSession(
            library,
            files["plan"],
            options,
            inputs,
            outputs,
            flavour=flavour,
            device=device,
            streams=1 if streams is None else streams,
            kernels=kernel_cache(cache_dir),
            cuda_graphs=cuda_graphs,
        )
    except BaseException:
        device.close()
        raise


class TensorRtSession:
    """A deserialized plan; see :class:`edgekit.runtime.session.Session`.

    Feeds are copied into page-locked memory, outputs once out of it; an integrated GPU works in that memory. All work
    is in the device's primary context.

    Args:
        library: The ``tensorrt`` or ``tensorrt_rtx`` module.
        plan: The serialized engine.
        options: See :func:`open_engine`.
        inputs, outputs: The interface that it must have.
        flavour: Names the library.
        device: Belongs to the session from here on, unless this raises.
        streams: Inferences that run side by side.
        kernels: Where compiled kernels are kept, for a library that compiles them.
        cuda_graphs: See :func:`open_engine`.

    Raises:
        StageError: The library refuses the plan, its interface is another, or memory is short.
    """

    def __init__(
        self,
        library: Any,
        plan: bytes,
        options: Mapping[str, Any],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        flavour: Flavour,
        device: CudaDevice,
        streams: int,
        kernels: LearnedCache,
        cuda_graphs: bool,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        # One more than run at once: the next one's input is copied while the engine works.
        self.in_flight = streams + 1
        self._flavour, self._device, self._streams = flavour, device, streams
        self._library: Any = library
        self._messages = Messages(library)
        self._largest = int(options.get("batch", (1, 1, 1))[2])
        self._check = FeedCheck(inputs, order=tuple(range(len(inputs))), largest_batch=self._largest)
        self.buffers = Buffers(device)
        self.graphs = GraphCapture(wanted=cuda_graphs, flavour=flavour, device=device, inputs=inputs)
        self._process = os.getpid()
        self._users = _Users()
        self._resources = ExitStack()
        with device.current(), ExitStack() as made:
            self._runtime: Any = library.Runtime(self._messages.logger)
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise StageError(
                    f"{flavour.title} {library.__version__} refuses the plan, which was built by "
                    f"{options.get('builder', 'an unknown version')}: {self._messages.reason()}",
                    hint="a plan runs with the release and on the GPUs that it was built for: compile or build it anew",
                )
            _check_interface(library, self._engine, inputs, outputs)
            self._config: Any = None
            self._kernels: CompiledKernels | None = None
            if flavour.compiles_kernels:
                self._config = self._engine.create_runtime_config()
                facts = {
                    "engine": hashlib.sha256(plan).hexdigest(),
                    "library": f"{flavour.title} {library.__version__}",
                    "gpu": device.facts.name,
                    "compute_capability": device.facts.compute_capability,
                    "driver": device.facts.driver,
                }
                self._kernels = CompiledKernels(self._config, store=kernels, facts=facts, messages=self._messages)
            if self._config is not None:
                self.graphs.configure(library, self._config)
            requests = [Request(self, made) for _ in range(self.in_flight)]
            self._resources = made.pop_all()
            if self._kernels is not None:
                self._resources.callback(self._kernels.close)  # which comes first, while there still are contexts
        self._pool: RequestPool[Request, Outputs] = RequestPool(requests)

    def infer(self, feeds: Mapping[str, Array]) -> Outputs:
        """Runs the engine once; see :meth:`edgekit.runtime.session.Session.infer`.

        Raises:
            UserError: Unknown or missing input, wrong dtype or shape, a closed session, or one of another process.
            StageError: The library or CUDA failed.
        """
        arrays = self._arrays(feeds)
        with self._users.one():
            request = self._pool.acquire()
            try:
                with self._device.current():
                    request.start(arrays)
                    return self._finished(request)
            finally:
                self._pool.release(request)

    def submit(self, feeds: Mapping[str, Array]) -> Ticket:
        """Starts an inference; the feeds are copied before it returns."""
        arrays = self._arrays(feeds)
        with self._users.one():
            request = self._pool.acquire()
            try:
                with self._device.current():
                    request.start(arrays)
            except BaseException:
                self._pool.release(request)
                raise
            return self._pool.start(request, self._finish, ())

    def collect(self, ticket: Ticket) -> Outputs:
        """Waits for a submitted inference and returns its outputs.

        Raises:
            UserError: Not a ticket of this session, or redeemed before.
            StageError: The library or CUDA failed.
        """
        if not isinstance(ticket, PendingTicket) or ticket.pool is not self._pool:
            raise UserError(f"collect: expected a ticket of this session's submit, got {type(ticket).__name__}")
        with self._users.one():
            return self._pool.collect(ticket)

    def layers(self) -> tuple[LayerRecord, ...]:
        """What the engine says of its layers; how much depends on the verbosity that it was built with."""
        with self._users.one(), self._device.current():
            inspector = self._open().create_engine_inspector()
            return layer_records(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))

    def describe(self) -> dict[str, str]:
        """Facts for reports."""
        facts = self._device.facts
        kernels = {} if self._kernels is None else {"kernels": self._kernels.describe()}
        return {
            "backend": f"{self._flavour.title} {self._library.__version__}",
            "device": facts.name,
            "compute_capability": facts.compute_capability,
            "driver": facts.driver,
            "num_streams": str(self._streams),
            "cuda_graphs": self.graphs.describe(),
            "zero_copy": self.buffers.describe(),
            **kernels,
        }

    def close(self) -> None:
        """Waits for what runs, and frees the engine. A second call, or one in a forked process, does nothing."""
        if os.getpid() != self._process or not self._pool.close():
            return
        self._users.wait_for_all()
        with self._device.current():
            self._resources.close()
            # In this order: an engine needs its runtime.
            self._config = None
            self._engine = None
            self._runtime = None
        self._device.close()

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execution_context(self) -> Any:
        """Makes an execution context; what the library compiles for it is kept.

        Raises:
            StageError: The library makes none.
        """
        if self._config is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(runtime_config=self._config)
        if context is None:
            raise self.failure()
        return context

    @property
    def device(self) -> CudaDevice:
        """The device that it runs on."""
        return self._device

    @property
    def largest_batch(self) -> int:
        """The most images that a dynamic batch may have."""
        return self._largest

    def failure(self) -> StageError:
        """The error to raise where the library says that it failed."""
        return StageError(f"{self._flavour.title} failed on {self._device.facts.name}: {self._messages.reason()}")

    def _arrays(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        if os.getpid() != self._process:
            raise UserError(
                "this model was loaded before the process forked, and CUDA does not survive that",
                hint="load it in the new process, or start processes with 'spawn'",
            )
        return self._check.arrays(feeds)

    def _finish(self, request: Request) -> Outputs:
        with self._device.current():
            return self._finished(request)

    def _finished(self, request: Request) -> Outputs:
        outputs = request.finish()
        if self._kernels is not None:
            self._kernels.ran()
        return outputs

    def _open(self) -> Any:
        if self._engine is None:
            raise UserError("this model is closed", hint="load the bundle again")
        return self._engine


class _Users:
    """Counts the threads that are inside, so that nothing is freed under them."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._changed:
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def wait_for_all(self) -> None:
        """Blocks until nobody is inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)


def _check_interface(
    library: Any, engine: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    """The plan must have the inputs and outputs that the bundle says, by name, type and shape."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for what, specs, mode in (
        ("input", inputs, library.TensorIOMode.INPUT),
        ("output", outputs, library.TensorIOMode.OUTPUT),
    ):
        found = [name for name in names if engine.get_tensor_mode(name) == mode]
        wanted = [spec.name for spec in specs]
        if sorted(found) != sorted(wanted):
            raise StageError(f"the engine's {what}s are {', '.join(found)}; the bundle says {', '.join(wanted)}")
        for spec in specs:
            dtype = np.dtype(library.nptype(engine.get_tensor_dtype(spec.name))).name
            shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(spec.name))
            if dtype != spec.dtype or shape != spec.shape:
                raise StageError(
                    f"{what} '{spec.name}': the engine has {dtype} {shape}; the bundle says {spec.dtype} {spec.shape}"
                )
