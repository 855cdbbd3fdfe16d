"""CUDA through pycuda, which JetPack's users have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pycuda.driver as driver

from edgekit.errors import BackendMissing, StageError
from edgekit.runtime.cuda.device import DeviceFacts, DeviceMemory, Graph, Stream

__all__ = ["facts", "open_device"]

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which pycuda has no name


def facts() -> tuple[DeviceFacts, ...]:
    """Returns what the driver says of each GPU; nothing where there is none.

    Raises:
        BackendMissing: The driver does not start.
    """
    try:
        driver.init()
    except driver.Error as error:
        if "no CUDA-capable device" in str(error) or "NO_DEVICE" in str(error).upper():
            return ()
        raise BackendMissing(f"the NVIDIA driver does not start: {error}", hint="look at nvidia-smi") from error
    return tuple(_facts(driver.Device(index)) for index in range(driver.Device.count()))


def open_device(index: int) -> _Device:
    """Opens a GPU that :func:`facts` lists."""
    return _Device(driver.Device(index))


def _facts(device: Any) -> DeviceFacts:
    version = int(driver.get_driver_version())
    major, minor = device.compute_capability()
    return DeviceFacts(
        name=str(device.name()),
        compute_capability=f"{major}.{minor}",
        driver=f"{version // 1000}.{version % 1000 // 10}",
        integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
    )


class _Device:
    no_graphs = "pycuda cannot capture a stream; cuda-bindings can"

    def __init__(self, device: Any) -> None:
        self.facts = _facts(device)
        with _explained():
            self._context: Any = device.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            driver.Context.pop()

    def stream(self) -> _Stream:
        with _explained():
            return _Stream(driver.Stream(_NON_BLOCKING))

    def allocate(self, size_bytes: int) -> _DeviceMemory:
        with _explained(f"{size_bytes:,} bytes of device memory"):
            return _DeviceMemory(driver.mem_alloc(size_bytes))

    def pinned(self, shape: Sequence[int], dtype: np.dtype[Any]) -> _PinnedMemory:
        with _explained(f"page-locked memory for {tuple(shape)} {dtype}"):
            return _PinnedMemory(driver.pagelocked_empty(tuple(shape), dtype))

    def mapped(self, shape: Sequence[int], dtype: np.dtype[Any]) -> _MappedMemory:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        flags = driver.host_alloc_flags.DEVICEMAP
        with _explained(f"{size:,} bytes of page-locked memory"):
            return _MappedMemory(driver.pagelocked_empty(tuple(shape), dtype, mem_flags=flags))

    def copy_in(self, target: DeviceMemory, source: npt.NDArray[Any], stream: Stream) -> None:
        with _explained():
            driver.memcpy_htod_async(target.pointer, source, stream.stream)  # type: ignore[attr-defined]

    def copy_out(self, target: npt.NDArray[Any], source: DeviceMemory, stream: Stream) -> None:
        with _explained():
            driver.memcpy_dtoh_async(target, source.pointer, stream.stream)  # type: ignore[attr-defined]

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        raise StageError(self.no_graphs, hint="install it: pip install cuda-bindings")

    def close(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            context.detach()


class _Stream:
    def __init__(self, stream: Any) -> None:
        self.stream: Any = stream
        self.handle = int(stream.handle)

    def synchronize(self) -> None:
        with _explained():
            self.stream.synchronize()

    def close(self) -> None:
        self.stream = None  # pycuda destroys it with the object


class _DeviceMemory:
    def __init__(self, allocation: Any) -> None:
        self._allocation: Any = allocation
        self.pointer = int(allocation)

    def close(self) -> None:
        with _explained():
            self._allocation.free()


class _PinnedMemory:
    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def close(self) -> None:
        with _explained():
            self.array.base.free()  # type: ignore[union-attr]


class _MappedMemory(_PinnedMemory):
    def __init__(self, array: npt.NDArray[Any]) -> None:
        super().__init__(array)
        try:
            self.pointer = int(array.base.get_device_pointer())  # type: ignore[union-attr]
        except BaseException:
            self.close()
            raise


@contextmanager
def _explained(what: str = "") -> Iterator[None]:
    try:
        yield
    except driver.Error as error:
        asked = f" ({what})" if what else ""
        memory = isinstance(error, driver.MemoryError)
        hint = "close what else uses the GPU's memory, or compile for a smaller batch" if memory else None
        raise StageError(f"CUDA failed: {error}{asked}", hint=hint) from error
