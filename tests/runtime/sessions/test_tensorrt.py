"""Sessions of TensorRT plans on a pretended GPU: the logic around the library, not the library."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.runtime.pipeline import pipelined
from edgekit.runtime.sessions import missing_device
from edgekit.runtime.tensorrt import FLAVOURS
from edgekit.tensorspec import TensorSpec
from tests.runtime.nvidia import MEMORY_BYTES, Gpu
from tests.runtime.pretended_tensorrt import tensorrt
from tests.runtime.sessions.plans import BATCH, IMAGE, OTHER, OUT, images, network, opened, plan_of


@pytest.mark.parametrize("kind", FLAVOURS)
def test_infer_answers_what_the_engine_computes(gpu: Gpu, kind: str) -> None:
    with opened(kind=kind) as session:
        for image in images(5):
            out = session.infer({"image": image[None]})
            assert list(out) == ["logits"]
            np.testing.assert_allclose(out["logits"], image[None].mean((1, 2)), rtol=1e-6)
            assert out["logits"].flags.owndata


def test_inputs_go_by_their_names(gpu: Gpu) -> None:
    bias = np.array([[1, 2, 3]], dtype=np.float32)
    with opened((OTHER, IMAGE), data=plan_of((IMAGE, OTHER))) as session:
        image = images(1)
        out = session.infer({"image": image, "bias": bias})["logits"]
    np.testing.assert_allclose(out, image.mean((1, 2)) + bias, rtol=1e-6)


def test_a_dynamic_batch_up_to_the_profile(gpu: Gpu) -> None:
    with opened(BATCH[:1], BATCH[1:]) as session:
        for count in (2, 4, 1, 4):
            batch = images(count, seed=count)
            out = session.infer({"image": batch})["logits"]
            np.testing.assert_allclose(out, batch.mean((1, 2)), rtol=1e-6)
        with pytest.raises(UserError, match="a batch of 5; the engine was built for at most 4"):
            session.infer({"image": images(5)})
        with pytest.raises(UserError, match="expected uint8"):
            session.infer({"image": images(1).astype(np.float32)})


def test_a_submitted_frame_may_be_overwritten_at_once(gpu: Gpu) -> None:
    with opened() as session:
        frame, tickets, expected = images(1), [], []
        for step in range(6):
            frame[...] = images(1, seed=step)
            expected.append(frame.mean((1, 2)))
            tickets.append(session.submit({"image": frame}))
        frame[...] = 0
        for ticket, mean in zip(tickets, expected, strict=True):
            np.testing.assert_allclose(session.collect(ticket)["logits"], mean, rtol=1e-6)
        with pytest.raises(UserError, match="redeemed before"):
            session.collect(tickets[0])
    with opened() as other, opened() as session, pytest.raises(UserError, match="a ticket of this session"):
        session.collect(other.submit({"image": images(1)}))


def test_threads_do_not_meet(gpu: Gpu) -> None:
    with opened(streams=3) as session, ThreadPoolExecutor(8) as pool:
        frames = images(200)
        assert session.in_flight == 4
        answers = list(pool.map(lambda frame: session.infer({"image": frame[None]})["logits"], frames))
    np.testing.assert_allclose(np.concatenate(answers), frames.mean((1, 2)), rtol=1e-6)


def test_closing_frees_everything_and_waits_for_who_is_inside(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    entered, finished = threading.Event(), threading.Event()
    synchronize = gpu.synchronize

    def slowly(stream: int) -> None:
        entered.set()
        time.sleep(0.2)
        synchronize(stream)
        finished.set()

    monkeypatch.setattr(gpu, "synchronize", slowly)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(session.infer, {"image": images(1)})
        assert entered.wait(5)
        session.close()
        assert finished.is_set()
        assert answer.result()["logits"].shape == (1, 3)
    session.close()
    assert (gpu.live, gpu.streams, gpu.retained) == ({}, {}, 0)
    with pytest.raises(UserError, match="this model is closed"):
        session.infer({"image": images(1)})


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((OTHER,), (OUT,), "the engine's inputs are image; the bundle says bias"),
        ((TensorSpec(name="image", dtype="float32", shape=(1, 4, 4, 3)),), (OUT,), "the engine has uint8"),
        ((IMAGE,), (TensorSpec(name="logits", dtype="float32", shape=(1, 4)),), r"\(1, 3\); the bundle says"),
    ],
)
def test_another_interface_is_refused(
    gpu: Gpu, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        opened(inputs, outputs, data=plan_of((IMAGE,)))
    assert (gpu.live, gpu.streams, gpu.retained) == ({}, {}, 0)


def test_a_refused_plan_says_who_built_it_and_leaves_nothing(gpu: Gpu) -> None:
    with pytest.raises(StageError, match=r"built by TensorRT-RTX 1\.6\.0: the header is not mine") as caught:
        opened(data=b"not a plan")
    assert caught.value.hint is not None
    assert "compile or build it anew" in caught.value.hint
    assert (gpu.live, gpu.streams, gpu.retained) == ({}, {}, 0)


def test_too_little_memory_leaves_nothing(gpu: Gpu) -> None:
    huge = TensorSpec(name="image", dtype="uint8", shape=(1, MEMORY_BYTES, 2, 3))
    with pytest.raises(StageError, match="memory"):
        opened((huge,))
    assert (gpu.live, gpu.streams, gpu.retained) == ({}, {}, 0)


def test_cpu_threads_are_refused(gpu: Gpu) -> None:
    with pytest.raises(UserError, match="runs on a GPU by TensorRT-RTX"):
        opened(threads=2)


def test_a_plan_is_opened_only_when_it_is_trusted(gpu: Gpu) -> None:
    with pytest.raises(UserError, match="opening a plan can run code") as caught:
        opened(trusted=False)
    assert caught.value.hint is not None
    assert "--trust-plan" in caught.value.hint
    assert gpu.retained == 0


def test_a_fork_is_refused_with_the_reason(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        with pytest.raises(UserError, match="before the process forked") as caught:
            session.infer({"image": images(1)})
        assert "spawn" in str(caught.value.hint)
        session.close()
        assert gpu.live
    session.close()
    assert not gpu.live


def test_devices_and_their_absence(gpu: Gpu) -> None:
    assert missing_device("tensorrt-rtx-plan", "GPU") is None
    gpu.count = 0
    with pytest.raises(BackendMissing, match="finds no GPU"):
        missing_device("tensorrt-rtx-plan", "GPU")


def test_facts_for_reports(gpu: Gpu) -> None:
    with opened(streams=2) as session:
        assert session.describe() == {
            "backend": "TensorRT-RTX 1.7.1.116",
            "device": "Pretended GPU",
            "compute_capability": "8.9",
            "driver": "13.1",
            "num_streams": "2",
            "cuda_graphs": "on, by TensorRT-RTX",
            "zero_copy": "off: the GPU has memory of its own",
            "kernels": "compiled here",
        }


def test_layers_come_with_the_precision_that_they_were_built_in(gpu: Gpu) -> None:
    with opened() as session:
        first, second, third = session.layers()
    assert (first.name, first.precision, first.compute) == ("layer1.0.conv1, node_relu_1", "int8", True)
    assert (second.name, second.precision, second.compute) == ("pool", "fp16", False)
    assert (third.name, third.precision, third.compute) == ("only a name", "unknown", False)


def test_the_real_library_has_what_is_used_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("tensorrt_rtx")
    pretended = tensorrt(Gpu(), "pretended", network)["pretended"]
    for name, kind in pretended.used.items():
        members = [member for member in vars(kind) if not member.startswith("_") and member != "inputs"]
        assert members
        assert [member for member in members if not hasattr(getattr(real, name), member)] == []
    assert real.nptype(real.DataType.UINT8) is np.uint8
    assert real.LayerInformationFormat.JSON
    assert "runtime_config: " in real.ICudaEngine.create_execution_context.__doc__
    assert real.TensorIOMode.INPUT


@pytest.mark.parametrize("kind", FLAVOURS)
def test_what_comes_after_an_inference_overlaps_with_the_next(gpu: Gpu, kind: str) -> None:
    frames = images(12)
    with opened(kind=kind, streams=2) as session:
        at_work = []
        for index, outputs in pipelined(session, ((index, {"image": frames[index, None]}) for index in range(12))):
            at_work.append(sum(bool(waiting) for waiting in gpu.streams.values()))
            np.testing.assert_allclose(outputs["logits"], frames[index, None].mean((1, 2)), rtol=1e-6)
        assert session.in_flight == 3
        assert at_work == [*[3] * 9, 2, 1, 0]
