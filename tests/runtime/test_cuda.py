"""The seam to CUDA, the same tests for both bindings: on a pretended GPU, and on a real one where there is one."""

from __future__ import annotations

import importlib.util
import inspect
import sys

import numpy as np
import pytest

from edgekit.errors import BackendMissing, StageError
from edgekit.runtime.cuda import DeviceFacts, device_facts, open_device
from tests.runtime.nvidia import DEVICEMAP, MEMORY_BYTES, Gpu, bindings, install, pycuda

BINDINGS = {"cuda-bindings": bindings, "pycuda": pycuda}
HIDDEN = {"cuda-bindings": {"pycuda": None}, "pycuda": {"cuda": None, "cuda.bindings": None}}


@pytest.fixture(params=BINDINGS)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    install(monkeypatch, {**HIDDEN[request.param], **BINDINGS[request.param](made)})
    return made


def test_a_device_says_what_it_is(gpu: Gpu) -> None:
    assert device_facts() == (
        DeviceFacts(
            name="Pretended GPU",
            compute_capability="8.9",
            driver="13.1",
            integrated=False,
        ),
    )
    gpu.integrated = True
    assert device_facts()[0].integrated


def test_what_goes_in_comes_out_once_the_stream_is_done(gpu: Gpu) -> None:
    device = open_device()
    with device.current():
        stream, memory = device.stream(), device.allocate(24)
        first, second = (device.pinned((2, 3), np.dtype(np.float32)) for _ in range(2))
        first.array[...] = np.arange(6).reshape(2, 3)
        second.array[...] = -1
        device.copy_in(memory, first.array, stream)
        device.copy_out(second.array, memory, stream)
        assert np.all(second.array == -1)
        stream.synchronize()
        np.testing.assert_array_equal(second.array, first.array)
        for item in (first, second, memory, stream):
            item.close()
    device.close()
    device.close()
    assert (gpu.live, gpu.streams, gpu.retained, gpu.contexts) == ({}, {}, 0, [])


def test_the_context_is_current_in_the_block_alone(gpu: Gpu) -> None:
    device = open_device()
    with device.current():
        assert gpu.contexts == ["context"]
    assert gpu.contexts == []
    with pytest.raises(StageError, match="CUDA failed"):
        device.stream()
    with pytest.raises(KeyError), device.current():
        raise KeyError
    assert gpu.contexts == []


def test_mapped_memory_has_an_address_on_the_device_too(gpu: Gpu) -> None:
    device = open_device()
    with device.current():
        memory = device.mapped((2, 3), np.dtype(np.float32))
        assert (memory.array.shape, memory.array.dtype) == ((2, 3), np.float32)
        assert gpu.mapped[memory.pointer] == memory.array.ctypes.data
        memory.close()
        gpu.mappable = False
        with pytest.raises(StageError, match=r"(?i)not.supported"):
            device.mapped((2, 3), np.dtype(np.float32))
        with pytest.raises(StageError, match="page-locked memory"):
            device.mapped((MEMORY_BYTES, 2), np.dtype(np.uint8))
    device.close()
    assert (gpu.live, gpu.mapped, gpu.retained) == ({}, {}, 0)


def _capturing(gpu: Gpu) -> bool:
    """Whether the binding captures; pycuda does not, and says so."""
    device = open_device()
    no_graphs = device.no_graphs
    if no_graphs:
        with device.current():
            with pytest.raises(StageError, match="pycuda cannot capture a stream") as caught:
                device.capture(device.stream(), lambda: None)
            assert "cuda-bindings" in str(caught.value.hint)
    device.close()
    return not no_graphs


def test_captured_work_runs_when_it_is_launched_as_often_as_it_is(gpu: Gpu) -> None:
    if not _capturing(gpu):
        return
    device = open_device()
    with device.current():
        stream, memory = device.stream(), device.allocate(4)
        given, got = (device.pinned((1,), np.dtype(np.int32)) for _ in range(2))

        def work() -> None:
            device.copy_in(memory, given.array, stream)
            device.copy_out(got.array, memory, stream)

        got.array[0] = -1
        graph = device.capture(stream, work)
        stream.synchronize()
        assert got.array[0] == -1
        for value in (5, 7):
            given.array[0] = value
            graph.launch(stream)
            stream.synchronize()
            assert got.array[0] == value
        for item in (graph, given, got, memory, stream):
            item.close()
    device.close()
    assert (gpu.live, gpu.streams, gpu.graphs, gpu.capturing, gpu.retained) == ({}, {}, {}, {}, 0)


def test_a_capture_that_fails_leaves_the_stream_as_it_was_and_nothing_behind(gpu: Gpu) -> None:
    if not _capturing(gpu):
        return
    device = open_device()
    with device.current():
        stream, memory = device.stream(), device.allocate(4)
        host = device.pinned((1,), np.dtype(np.int32))

        def raises() -> None:
            device.copy_in(memory, host.array, stream)
            raise StageError("the library failed")

        def invalidates() -> None:
            device.copy_in(memory, host.array, stream)
            gpu.invalidate(stream.handle)

        def both() -> None:
            invalidates()
            raise StageError("the library failed")

        for work, message in (
            (raises, "the library failed"),
            (invalidates, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
            (both, "the library failed"),
        ):
            with pytest.raises(StageError, match=message):
                device.capture(stream, work)
            assert (gpu.graphs, gpu.capturing) == ({}, {})
        device.copy_in(memory, host.array, stream)
        stream.synchronize()


def test_memory_that_is_not_there_says_how_much_was_asked_for(gpu: Gpu) -> None:
    device = open_device()
    with device.current(), pytest.raises(StageError, match=r"268,435,457 bytes of device memory") as caught:
        device.allocate(MEMORY_BYTES + 1)
    assert caught.value.hint is not None
    with device.current(), pytest.raises(StageError, match="page-locked memory"):
        device.pinned((MEMORY_BYTES, 2), np.dtype(np.uint8))


def test_no_gpu_and_no_such_gpu(gpu: Gpu) -> None:
    with pytest.raises(BackendMissing, match="there is no GPU 1 here; the driver finds 1"):
        open_device(1)
    gpu.count = 0
    with pytest.raises(BackendMissing, match="the NVIDIA driver finds no GPU"):
        open_device()


def test_without_any_binding_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"cuda": None, "cuda.bindings": None, "pycuda": None})
    with pytest.raises(BackendMissing, match="neither cuda-bindings nor pycuda") as caught:
        device_facts()
    assert caught.value.hint == "install one: pip install cuda-bindings"


def test_pycuda_is_asked_where_cuda_bindings_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"cuda": None, "cuda.bindings": None, **pycuda(Gpu())})
    device_facts()
    assert "edgekit.runtime.cuda.pycuda" in sys.modules


def _real_gpu() -> bool:
    try:
        return bool(device_facts())
    except BackendMissing:
        return False


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-bindings is not installed")
@pytest.mark.skipif(_real_gpu(), reason="this machine has a GPU")
def test_a_machine_without_a_driver_says_so() -> None:
    """The real bindings."""
    with pytest.raises(BackendMissing, match=r"NVIDIA driver|GPU"):
        open_device()


def test_the_real_bindings_have_every_call_that_is_made() -> None:
    real = pytest.importorskip("cuda.bindings.driver")
    pretended = bindings(Gpu())["cuda.bindings.driver"]
    names = [name for name, value in vars(pretended).items() if name.startswith("cu") and callable(value)]
    assert len(names) > 15
    assert [name for name in names if not hasattr(real, name)] == []
    assert int(real.CUresult.CUDA_ERROR_NO_DEVICE) == 100
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    assert int(real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) == 1
    assert int(real.CU_MEMHOSTALLOC_DEVICEMAP) == DEVICEMAP
    attributes = vars(pretended.CUdevice_attribute)
    assert [name for name in attributes if not hasattr(real.CUdevice_attribute, name)] == []
    assert inspect.isroutine(real.cuMemcpyHtoDAsync)
