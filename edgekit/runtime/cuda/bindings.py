"""CUDA through cuda-bindings.

Source: CUDA Driver API reference; cuda-bindings returns its calls' results as tuples that begin with the error code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver

from edgekit.errors import BackendMissing, StageError
from edgekit.runtime.cuda.device import DeviceFacts, DeviceMemory, Stream

__all__ = ["facts", "open_device"]

_NAME_BYTES = 256
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


def facts() -> tuple[DeviceFacts, ...]:
    """Returns what the driver says of each GPU; nothing where there is none.

    Raises:
        BackendMissing: There is no driver, or it does not start.
    """
    try:
        code = int(driver.cuInit(0)[0])
    except RuntimeError as error:  # how the bindings say that the driver's library is not there
        raise BackendMissing("there is no NVIDIA driver on this machine", hint="install the GPU's driver") from error
    if code == _NO_DEVICE:
        return ()
    if code != 0:
        raise BackendMissing(f"the NVIDIA driver does not start: {_name(code)}", hint="look at nvidia-smi")
    return tuple(_facts(_done(driver.cuDeviceGet(index))) for index in range(_done(driver.cuDeviceGetCount())))


def open_device(index: int) -> _Device:
    """Opens a GPU that :func:`facts` lists."""
    return _Device(_done(driver.cuDeviceGet(index)))


def _facts(device: Any) -> DeviceFacts:
    attribute = driver.CUdevice_attribute
    major, minor = (
        int(_done(driver.cuDeviceGetAttribute(key, device)))
        for key in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    version = int(_done(driver.cuDriverGetVersion()))
    name = _done(driver.cuDeviceGetName(_NAME_BYTES, device))
    integrated = int(_done(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, device)))
    return DeviceFacts(
        name=bytes(name).split(b"\0")[0].decode(errors="replace"),
        compute_capability=f"{major}.{minor}",
        driver=f"{version // 1000}.{version % 1000 // 10}",
        integrated=integrated != 0,
    )


class _Device:
    no_graphs = ""

    def __init__(self, device: Any) -> None:
        self.facts = _facts(device)
        self._device: Any = device
        self._context: Any = _done(driver.cuDevicePrimaryCtxRetain(device))

    @contextmanager
    def current(self) -> Iterator[None]:
        _done(driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            _done(driver.cuCtxPopCurrent())

    def stream(self) -> _Stream:
        return _Stream(_done(driver.cuStreamCreate(int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))))

    def allocate(self, size_bytes: int) -> _DeviceMemory:
        return _DeviceMemory(_done(driver.cuMemAlloc(size_bytes), what=f"{size_bytes:,} bytes of device memory"))

    def pinned(self, shape: Sequence[int], dtype: np.dtype[Any]) -> _PinnedMemory:
        return _PinnedMemory(shape, dtype, flags=0)

    def mapped(self, shape: Sequence[int], dtype: np.dtype[Any]) -> _PinnedMemory:
        memory = _PinnedMemory(shape, dtype, flags=int(driver.CU_MEMHOSTALLOC_DEVICEMAP))
        try:
            memory.pointer = int(_done(driver.cuMemHostGetDevicePointer(memory.address, 0), what="host memory"))
        except BaseException:
            memory.close()
            raise
        return memory

    def copy_in(self, target: DeviceMemory, source: npt.NDArray[Any], stream: Stream) -> None:
        _done(driver.cuMemcpyHtoDAsync(target.pointer, source.ctypes.data, source.nbytes, stream.handle))

    def copy_out(self, target: npt.NDArray[Any], source: DeviceMemory, stream: Stream) -> None:
        _done(driver.cuMemcpyDtoHAsync(target.ctypes.data, source.pointer, target.nbytes, stream.handle))

    def capture(self, stream: Stream, work: Callable[[], None]) -> _Graph:
        # As trtexec does: what other threads allocate meanwhile is no concern of this capture.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _done(driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            work()
        except BaseException:
            code, graph = driver.cuStreamEndCapture(stream.handle)
            if int(code) == 0:
                _done(driver.cuGraphDestroy(graph))
            raise
        graph = _done(driver.cuStreamEndCapture(stream.handle))
        try:
            return _Graph(_done(driver.cuGraphInstantiate(graph, 0)))
        finally:
            _done(driver.cuGraphDestroy(graph))

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            _done(driver.cuDevicePrimaryCtxRelease(self._device))


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream: Any = stream
        self.handle = int(stream)

    def synchronize(self) -> None:
        _done(driver.cuStreamSynchronize(self._stream))

    def close(self) -> None:
        _done(driver.cuStreamDestroy(self._stream))


class _Graph:
    def __init__(self, graph: Any) -> None:
        self._graph: Any = graph

    def launch(self, stream: Stream) -> None:
        _done(driver.cuGraphLaunch(self._graph, stream.handle))

    def close(self) -> None:
        _done(driver.cuGraphExecDestroy(self._graph))


class _DeviceMemory:
    def __init__(self, pointer: Any) -> None:
        self.pointer = int(pointer)

    def close(self) -> None:
        _done(driver.cuMemFree(self.pointer))


class _PinnedMemory:
    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], *, flags: int) -> None:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        what = f"{size:,} bytes of page-locked memory"
        self.address = int(_done(driver.cuMemHostAlloc(size, flags), what=what))
        self.pointer = 0  # for the device, once it is known
        plain: Any = (ctypes.c_uint8 * size).from_address(self.address)
        self.array: npt.NDArray[Any] = np.frombuffer(plain, dtype=dtype).reshape(tuple(shape))

    def close(self) -> None:
        _done(driver.cuMemFreeHost(self.address))


def _done(answer: tuple[Any, ...], *, what: str = "") -> Any:
    """Returns a call's result.

    Raises:
        StageError: It failed; ``what`` was asked for.
    """
    code = int(answer[0])
    if code != 0:
        asked = f" ({what})" if what else ""
        raise StageError(f"CUDA failed: {_name(code)}{asked}", hint=_HINTS.get(code))
    return answer[1] if len(answer) == 2 else answer[1:]


_HINTS = {2: "close what else uses the GPU's memory, or compile for a smaller batch"}


def _name(code: int) -> str:
    try:
        return str(driver.CUresult(code).name)
    except ValueError:
        return f"error {code}"
