"""Memory for a session's inputs and outputs: on the device with a page-locked counterpart, or one for both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import StageError
from edgekit.runtime.cuda import CudaDevice
from edgekit.runtime.cuda.device import DeviceMemory, Stream
from edgekit.tensorspec import TensorSpec

__all__ = ["Buffer", "Buffers"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One input or output of one request.

    Attributes:
        spec: Of the tensor.
        array: The host's side, page-locked.
        pointer: Where the engine reads or writes.
        device: Memory of the device, to copy to and from; None where the engine works in the host's memory.
    """

    spec: TensorSpec
    array: Array
    pointer: int
    device: DeviceMemory | None = field(repr=False)

    def room(self, shape: Sequence[int]) -> Array:
        """Returns the host's side of a tensor of this shape, which has at most the batch of the buffer."""
        return self.array[: shape[0]] if shape else self.array

    def copy_in(self, device: CudaDevice, shape: Sequence[int], stream: Stream) -> None:
        """Starts copying what is in :meth:`room` to where the engine reads it, where that is elsewhere."""
        if self.device is not None:
            device.copy_in(self.device, self.room(shape), stream)

    def copy_out(self, device: CudaDevice, shape: Sequence[int], stream: Stream) -> None:
        """Starts copying what the engine wrote into :meth:`room`, where that is elsewhere."""
        if self.device is not None:
            device.copy_out(self.room(shape), self.device, stream)


class Buffers:
    """Makes a session's buffers: on an integrated GPU, which has no memory of its own, without a second copy.

    What is shared so is written once and read once. Source: CUDA for Tegra application note, "I/O Coherency" and
    "Memory Selection"; whether it is faster than a copy depends on the network, and is not measured.

    Args:
        device: The device.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._why_not = "" if device.facts.integrated else "the GPU has memory of its own"

    def make(self, spec: TensorSpec, shape: Sequence[int], resources: ExitStack) -> Buffer:
        """Makes one.

        Args:
            spec: The tensor.
            shape: The largest that it may have.
            resources: Frees it.

        Raises:
            StageError: Memory is short.
        """
        dtype = np.dtype(spec.dtype)
        if not self._why_not:
            try:
                # Aligned to pages, where TensorRT asks for 256 bytes (IExecutionContext::setTensorAddress).
                mapped = self._device.mapped(shape, dtype)
            except StageError as error:
                self._why_not = error.message
            else:
                resources.callback(mapped.close)
                return Buffer(spec=spec, array=mapped.array, pointer=mapped.pointer, device=None)
        host = self._device.pinned(shape, dtype)
        resources.callback(host.close)
        memory = self._device.allocate(max(1, host.array.nbytes))
        resources.callback(memory.close)
        return Buffer(spec=spec, array=host.array, pointer=memory.pointer, device=memory)

    def describe(self) -> str:
        """Says whether the engine works in the host's memory, for reports."""
        return f"off: {self._why_not}" if self._why_not else "on"
