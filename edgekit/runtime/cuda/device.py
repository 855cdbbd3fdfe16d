"""What a session needs of CUDA: one device, its memory, its streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["CudaDevice", "DeviceFacts", "DeviceMemory", "Graph", "MappedMemory", "PinnedMemory", "Stream"]


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A GPU, as its driver describes it.

    Attributes:
        name: Such as ``Orin`` or ``NVIDIA GeForce RTX 4070``.
        compute_capability: Generation, such as ``8.7``.
        driver: CUDA version that the driver supports, such as ``12.6``.
        integrated: Whether its memory is the host's, as on a Jetson.
    """

    name: str
    compute_capability: str
    driver: str
    integrated: bool


class Stream(Protocol):
    """Work in order; other streams run beside it.

    Attributes:
        handle: For libraries.
    """

    handle: int

    def synchronize(self) -> None:
        """Waits until all work is done."""

    def close(self) -> None:
        """Frees it."""


class DeviceMemory(Protocol):
    """Memory of the device.

    Attributes:
        pointer: Its address there.
    """

    pointer: int

    def close(self) -> None:
        """Frees it."""


class PinnedMemory(Protocol):
    """Memory of the host that the device copies from and to by itself: it cannot be paged out.

    Attributes:
        array: The memory; must not be used after :meth:`close`.
    """

    array: npt.NDArray[Any]

    def close(self) -> None:
        """Frees it."""


class MappedMemory(Protocol):
    """Page-locked memory of the host in which the device works by itself.

    Attributes:
        array: The memory, for the host; must not be used after :meth:`close`.
        pointer: Its address for the device.
    """

    array: npt.NDArray[Any]
    pointer: int

    def close(self) -> None:
        """Frees it."""


class Graph(Protocol):
    """Captured work; one launch at a time."""

    def launch(self, stream: Stream) -> None:
        """Starts all of it.

        Raises:
            StageError: CUDA failed.
        """

    def close(self) -> None:
        """Frees it."""


class CudaDevice(Protocol):
    """An opened device; its methods need :meth:`current` around them, in the thread that calls.

    Attributes:
        facts: What it is.
        no_graphs: Why :meth:`capture` cannot work with this binding; empty where it can.
    """

    facts: DeviceFacts
    no_graphs: str

    def current(self) -> AbstractContextManager[None]:
        """Makes the device's primary context the thread's own, for as long as the block lasts."""

    def stream(self) -> Stream:
        """Makes a stream that does not wait for the default one."""

    def allocate(self, size_bytes: int) -> DeviceMemory:
        """Allocates memory on the device.

        Raises:
            StageError: There is not enough.
        """

    def pinned(self, shape: Sequence[int], dtype: np.dtype[Any]) -> PinnedMemory:
        """Allocates page-locked memory on the host.

        Raises:
            StageError: There is not enough.
        """

    def mapped(self, shape: Sequence[int], dtype: np.dtype[Any]) -> MappedMemory:
        """Allocates page-locked memory on the host that has an address on the device too.

        Raises:
            StageError: There is not enough, or the device cannot do that.
        """

    def copy_in(self, target: DeviceMemory, source: npt.NDArray[Any], stream: Stream) -> None:
        """Starts copying a contiguous array to the device."""

    def copy_out(self, target: npt.NDArray[Any], source: DeviceMemory, stream: Stream) -> None:
        """Starts copying from the device into a contiguous array."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Captures what ``work`` starts on the stream, without running any of it.

        Whatever comes of it, the stream is as before; other threads are not disturbed.

        Args:
            stream: Nothing else may use it meanwhile.
            work: Copies and inferences on memory that stays where it is for as long as the graph is used.

        Raises:
            StageError: The binding cannot, ``work`` raised it, or it did what cannot be captured.
        """

    def close(self) -> None:
        """Gives the primary context back; a second call does nothing."""
