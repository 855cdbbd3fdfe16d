"""A GPU made of host memory, for the logic around the driver and TensorRT; it proves nothing about a real one.

Copies and inferences wait in their stream until it is synchronized, memory is counted, and every call needs a current
context, so that what goes wrong on a device because of these goes wrong here.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

MEMORY_BYTES = 1 << 28
DEVICEMAP = 2
ELSEWHERE = 1 << 56  # where host memory is on the device, beyond any address of the host


class CudaError(Exception):
    """What fake pycuda raises."""


class OutOfMemory(CudaError):
    """The same for memory."""


class Gpu:
    """The device.

    Attributes:
        live: Addresses of allocations, with their memory.
        streams: Handle to what waits in it.
        capturing: Stream that is being captured, to what was recorded; None where the capture is invalid.
        graphs: Handle of a graph, or of what can be launched, to what it does.
        integrated: Whether it works in the host's memory.
        mappable: Whether it can.
        mapped: Address of host memory on the device, which is another than on the host, to that on the host.
        copies, launches: How many copies were enqueued (one in a capture counts once), and graphs launched.
        logger: Of the library that was opened last.
    """

    def __init__(self, *, count: int = 1) -> None:
        self.count = count
        self.live: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.retained = 0
        self.capturing: dict[int, list[Callable[[], None]] | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.integrated, self.mappable = False, True
        self.mapped: dict[int, int] = {}
        self.copies = self.launches = 0
        self.logger: Any = None
        self._local = threading.local()
        self._lock = threading.Lock()
        self._next_stream = 100

    @property
    def contexts(self) -> list[str]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        found: list[str] = self._local.stack
        return found

    def allocate(self, size: int) -> int | None:
        if size > MEMORY_BYTES:
            return None
        memory = ctypes.create_string_buffer(b"\xee" * size, size)
        address = ctypes.addressof(memory)
        with self._lock:
            self.live[address] = memory
        return address

    def free(self, address: int) -> None:
        with self._lock:
            del self.live[int(address)]
            self.mapped.pop(int(address) + ELSEWHERE, None)

    def map(self, address: int) -> int | None:
        """Address on the device of host memory that was allocated for that."""
        return address + ELSEWHERE if address + ELSEWHERE in self.mapped else None

    def mappable_memory(self, size: int, flags: int) -> int | None:
        address = self.allocate(size)
        if address is not None and flags & DEVICEMAP and self.mappable:
            self.mapped[address + ELSEWHERE] = address
        return address

    def new_stream(self) -> int:
        with self._lock:
            self._next_stream += 1
            self.streams[self._next_stream] = []
            return self._next_stream

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        if stream not in self.capturing:
            self.streams[int(stream)].append(work)
        elif (recorded := self.capturing[stream]) is not None:
            recorded.append(work)

    def begin_capture(self, stream: int) -> None:
        self.capturing[stream] = []

    def invalidate(self, stream: int) -> bool:
        """Does what cannot be captured; says whether that did harm."""
        if stream not in self.capturing:
            return False
        self.capturing[stream] = None
        return True

    def end_capture(self, stream: int) -> int | None:
        recorded = self.capturing.pop(stream)
        return None if recorded is None else self.new_graph(recorded)

    def new_graph(self, work: list[Callable[[], None]]) -> int:
        with self._lock:
            self._next_stream += 1
            self.graphs[self._next_stream] = work
            return self._next_stream

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.copies += 1
        self.enqueue(int(stream), lambda: ctypes.memmove(int(target), int(source), size) and None)

    def launch(self, graph: int, stream: int) -> None:
        self.launches += 1
        for work in self.graphs[graph]:
            self.enqueue(stream, work)

    def synchronize(self, stream: int) -> None:
        assert stream not in self.capturing, "a stream that is captured cannot be waited for"
        waiting = self.streams[int(stream)]
        while waiting:
            waiting.pop(0)()


def at(address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The memory at an address, as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=dtype).reshape(shape)


def bindings(gpu: Gpu) -> dict[str, ModuleType]:
    """Modules like those of cuda-bindings."""

    class CUresult(enum.IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_OUT_OF_MEMORY = 2
        CUDA_ERROR_NO_DEVICE = 100
        CUDA_ERROR_INVALID_CONTEXT = 201
        CUDA_ERROR_NOT_SUPPORTED = 801
        CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901

    ok = CUresult.CUDA_SUCCESS

    def needs_context(call: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        def checked(*arguments: Any) -> tuple[Any, ...]:
            return call(*arguments) if gpu.contexts else (CUresult.CUDA_ERROR_INVALID_CONTEXT, None)

        return checked

    def allocated(size: int, flags: int = 0) -> tuple[Any, ...]:
        address = gpu.mappable_memory(size, flags)
        return (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None) if address is None else (ok, address)

    def mapped(address: int, flags: int) -> tuple[Any, ...]:
        pointer = gpu.map(address)
        return (CUresult.CUDA_ERROR_NOT_SUPPORTED, None) if pointer is None else (ok, pointer)

    def did(action: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            action(*arguments)
            return (ok,)

        return call

    def end_capture(stream: int) -> tuple[Any, ...]:
        graph = gpu.end_capture(stream)
        return (CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None) if graph is None else (ok, graph)

    def retain(device: int) -> tuple[Any, ...]:
        gpu.retained += 1
        return ok, "context"

    def release(device: int) -> None:
        gpu.retained -= 1

    driver = pretended_module(
        "cuda.bindings.driver",
        CUresult=CUresult,
        CUdevice_attribute=SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="MAJOR",
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="MINOR",
            CU_DEVICE_ATTRIBUTE_INTEGRATED="INTEGRATED",
        ),
        CUstream_flags=SimpleNamespace(CU_STREAM_NON_BLOCKING=1),
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1),
        cuInit=lambda flags: (ok,) if gpu.count else (CUresult.CUDA_ERROR_NO_DEVICE,),
        cuDeviceGetCount=lambda: (ok, gpu.count),
        cuDeviceGet=lambda index: (ok, index),
        cuDeviceGetAttribute=lambda key, device: (
            ok,
            {"MAJOR": 8, "MINOR": 9, "INTEGRATED": int(gpu.integrated)}[key],
        ),
        cuDeviceGetName=lambda size, device: (ok, b"Pretended GPU\0\0"),
        cuDriverGetVersion=lambda: (ok, 13010),
        cuDevicePrimaryCtxRetain=retain,
        cuDevicePrimaryCtxRelease=did(release),
        cuCtxPushCurrent=did(lambda context: gpu.contexts.append(context)),
        cuCtxPopCurrent=lambda: (ok, gpu.contexts.pop()),
        cuStreamCreate=needs_context(lambda flags: (ok, gpu.new_stream())),
        cuStreamSynchronize=needs_context(did(lambda stream: gpu.synchronize(stream))),
        cuStreamDestroy=needs_context(did(lambda stream: gpu.streams.pop(stream))),
        cuMemAlloc=needs_context(allocated),
        cuMemFree=needs_context(did(gpu.free)),
        cuMemHostAlloc=needs_context(allocated),
        cuMemHostGetDevicePointer=needs_context(mapped),
        CU_MEMHOSTALLOC_DEVICEMAP=DEVICEMAP,
        cuMemFreeHost=needs_context(did(gpu.free)),
        cuStreamBeginCapture=needs_context(did(lambda stream, mode: gpu.begin_capture(stream))),
        cuStreamEndCapture=needs_context(end_capture),
        cuGraphInstantiate=needs_context(lambda graph, flags: (ok, gpu.new_graph(gpu.graphs[graph]))),
        cuGraphLaunch=needs_context(did(gpu.launch)),
        cuGraphDestroy=needs_context(did(gpu.graphs.pop)),
        cuGraphExecDestroy=needs_context(did(gpu.graphs.pop)),
        cuMemcpyHtoDAsync=needs_context(did(gpu.copy)),
        cuMemcpyDtoHAsync=needs_context(did(gpu.copy)),
    )
    package = pretended_module("cuda.bindings", driver=driver)
    return {
        "cuda": pretended_module("cuda", bindings=package),
        "cuda.bindings": package,
        "cuda.bindings.driver": driver,
    }


def pycuda(gpu: Gpu) -> dict[str, ModuleType]:
    """Modules like those of pycuda."""

    def init() -> None:
        if not gpu.count:
            raise CudaError("cuInit failed: no CUDA-capable device is detected")

    def here() -> None:
        if not gpu.contexts:
            raise CudaError("invalid device context")

    class Allocation:
        def __init__(self, size: int, flags: int = 0) -> None:
            here()
            address = gpu.mappable_memory(size, flags)
            if address is None:
                raise OutOfMemory("cuMemAlloc failed: out of memory")
            self.address = address

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            gpu.free(self.address)

    class HostAllocation:
        def __init__(self, shape: tuple[int, ...], dtype: Any, flags: int) -> None:
            self._address = int(Allocation(int(np.prod(shape)) * np.dtype(dtype).itemsize, flags))
            self.__array_interface__ = {
                "shape": shape,
                "typestr": np.dtype(dtype).str,
                "data": (self._address, False),
                "version": 3,
            }

        def free(self) -> None:
            gpu.free(self._address)

        def get_device_pointer(self) -> int:
            pointer = gpu.map(self._address)
            if pointer is None:
                raise CudaError("cuMemHostGetDevicePointer failed: operation not supported")
            return pointer

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        return np.asarray(HostAllocation(shape, dtype, mem_flags))

    class Context:
        def push(self) -> None:
            gpu.contexts.append("context")

        @staticmethod
        def pop() -> None:
            gpu.contexts.pop()

        def detach(self) -> None:
            gpu.retained -= 1

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        @staticmethod
        def count() -> int:
            return gpu.count

        def name(self) -> str:
            return "Pretended GPU"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 9

        def get_attribute(self, attribute: str) -> int:
            return int({"INTEGRATED": gpu.integrated}[attribute])

        def retain_primary_context(self) -> Context:
            gpu.retained += 1
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            here()
            self.handle = gpu.new_stream()

        def synchronize(self) -> None:
            here()
            gpu.synchronize(self.handle)

        def __del__(self) -> None:
            if hasattr(self, "handle"):
                gpu.streams.pop(self.handle, None)

    def copy_in(target: int, source: np.ndarray, stream: Stream) -> None:
        here()
        gpu.copy(target, source.ctypes.data, source.nbytes, stream.handle)

    def copy_out(target: np.ndarray, source: int, stream: Stream) -> None:
        here()
        gpu.copy(target.ctypes.data, source, target.nbytes, stream.handle)

    driver = pretended_module(
        "pycuda.driver",
        Error=CudaError,
        MemoryError=OutOfMemory,
        Context=Context,
        Device=Device,
        Stream=Stream,
        device_attribute=SimpleNamespace(INTEGRATED="INTEGRATED"),
        host_alloc_flags=SimpleNamespace(DEVICEMAP=DEVICEMAP),
        get_driver_version=lambda: 13010,
        init=init,
        mem_alloc=Allocation,
        memcpy_dtoh_async=copy_out,
        memcpy_htod_async=copy_in,
        pagelocked_empty=pagelocked_empty,
    )
    return {"pycuda": pretended_module("pycuda", driver=driver), "pycuda.driver": driver}


def install(patch: pytest.MonkeyPatch, modules: Mapping[str, ModuleType | None]) -> None:
    """Puts modules where imports find them; None hides one. The seam is imported anew."""
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    for name in ("edgekit.runtime.cuda.bindings", "edgekit.runtime.cuda.pycuda"):
        patch.delitem(sys.modules, name, raising=False)


def pretended_module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    for key, value in members.items():
        setattr(module, key, value)
    return module
