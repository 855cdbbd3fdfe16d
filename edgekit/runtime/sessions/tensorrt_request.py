"""One inference of a TensorRT session at a time: an execution context, a stream, and memory for inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.errors import StageError
from edgekit.runtime.cuda import CudaDevice
from edgekit.runtime.cuda.device import Graph
from edgekit.runtime.sessions.tensorrt_buffers import Buffer, Buffers
from edgekit.runtime.sessions.tensorrt_graphs import GraphCapture
from edgekit.tensorspec import TensorSpec

__all__ = ["OpenedEngine", "Request"]

Array = npt.NDArray[Any]
Outputs = dict[str, npt.NDArray[Any]]


class OpenedEngine(Protocol):
    """What a request needs of its session.

    Attributes:
        inputs, outputs: The interface.
        buffers: Makes memory for inputs and outputs.
        graphs: Whether inferences are to be captured.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    buffers: Buffers
    graphs: GraphCapture

    @property
    def device(self) -> CudaDevice:
        """The device that it runs on."""

    @property
    def largest_batch(self) -> int:
        """The most images that a dynamic batch may have."""

    def execution_context(self) -> Any:
        """Makes an execution context of the library's."""

    def failure(self) -> StageError:
        """The error to raise where the library says that it failed."""


class Request:
    """One inference at a time.

    Args:
        session: Whose engine it runs.
        resources: Frees what it takes.

    Raises:
        StageError: The library makes no context, or memory is short.
    """

    def __init__(self, session: OpenedEngine, resources: ExitStack) -> None:
        self._session, self._device = session, session.device
        self._context: Any = session.execution_context()
        resources.callback(self._forget)
        self._stream = self._device.stream()
        resources.callback(self._stream.close)
        self._graph: Graph | None = None
        self._ran = False
        resources.callback(self._drop_graph)
        self._shapes: tuple[tuple[int, ...], ...] = ()
        for spec in session.inputs:
            self._shape(spec.name, _at_most(spec, session.largest_batch))
        self._inputs = tuple(
            self._buffer(spec, _at_most(spec, session.largest_batch), resources) for spec in session.inputs
        )
        self._outputs = tuple(self._buffer(spec, self._output_shape(spec.name), resources) for spec in session.outputs)
        self._ready: tuple[Array, ...] = ()

    def start(self, arrays: Sequence[Array]) -> None:
        """Copies the arrays, and sets copies and inference going.

        The first time the engine runs as it is, which TensorRT needs before a capture; then it is captured, where that
        is wanted and possible, and from there on launched as a graph.

        Raises:
            StageError: The library or CUDA failed.
        """
        self._feed(arrays)
        graphs = self._session.graphs
        if self._graph is None and self._ran and graphs.is_ours:
            self._graph = graphs.capture(self._device, self._stream, self._enqueue)
        if self._graph is not None and graphs.is_ours:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
        self._ran = True

    def finish(self) -> Outputs:
        """Waits, and returns the outputs, which are the caller's.

        Raises:
            StageError: CUDA failed.
        """
        self._stream.synchronize()
        return {buffer.spec.name: room.copy() for buffer, room in zip(self._outputs, self._ready, strict=True)}

    def _feed(self, arrays: Sequence[Array]) -> None:
        dynamic = tuple(array.shape for array in arrays)
        for buffer, array in zip(self._inputs, arrays, strict=True):
            np.copyto(buffer.room(array.shape), array)
            if dynamic != self._shapes:
                self._shape(buffer.spec.name, array.shape)
        self._shapes = dynamic

    def _enqueue(self) -> None:
        for buffer, shape in zip(self._inputs, self._shapes, strict=True):
            buffer.copy_in(self._device, shape, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._session.failure()
        ready = []
        for buffer in self._outputs:
            shape = self._output_shape(buffer.spec.name)
            buffer.copy_out(self._device, shape, self._stream)
            ready.append(buffer.room(shape))
        self._ready = tuple(ready)

    def _shape(self, name: str, shape: Sequence[int]) -> None:
        if not self._context.set_input_shape(name, tuple(shape)):
            raise self._session.failure()

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise StageError(f"output '{name}': its shape {shape} depends on the data; only the batch may vary")
        return shape

    def _buffer(self, spec: TensorSpec, shape: Sequence[int], resources: ExitStack) -> Buffer:
        buffer = self._session.buffers.make(spec, shape, resources)
        if not self._context.set_tensor_address(spec.name, buffer.pointer):
            raise self._session.failure()
        return buffer

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.close()

    def _forget(self) -> None:
        self._context = None


def _at_most(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if size is None else size for size in spec.shape)
