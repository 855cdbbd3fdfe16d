"""CUDA graphs of sessions: on a pretended GPU, whose library refuses a capture as the real one does."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgekit.runtime.session import Session
from tests.runtime.nvidia import Gpu
from tests.runtime.sessions.plans import BATCH, IMAGE, OTHER, images, opened

KIND = "tensorrt-plan"


@pytest.fixture
def captures(gpu: Gpu) -> bool:
    """Whether the binding is one that captures."""
    return "pycuda" not in sys.modules or sys.modules["pycuda"] is None


def check(session: Session, count: int, seed: int = 0) -> None:
    for image in images(count, seed):
        out = session.infer({"image": image[None]})["logits"]
        np.testing.assert_allclose(out, image[None].mean((1, 2)), rtol=1e-6)


def test_each_request_runs_once_and_is_a_graph_from_then_on(gpu: Gpu, captures: bool) -> None:
    with opened(kind=KIND) as session:
        state = session.describe()["cuda_graphs"]
        check(session, 1)
        assert gpu.launches == 0
        check(session, 9, seed=1)
        tickets = [session.submit({"image": image[None]}) for image in images(6)]
        for image, ticket in zip(images(6), tickets, strict=True):
            np.testing.assert_allclose(session.collect(ticket)["logits"], image[None].mean((1, 2)), rtol=1e-6)
        if captures:
            assert state == "on from the second inference on"
            assert session.describe()["cuda_graphs"] == "on"
            # 9 calls, and 6 tickets on two requests, of which one had not run before.
            assert gpu.launches == 9 + 5
            # In and out, by hand for the first run of each request, once more for its capture.
            assert gpu.copies == 2 * 2 * 2
            assert len(gpu.graphs) == 2
        else:
            assert state == "off: pycuda cannot capture a stream; cuda-bindings can"
            assert session.describe()["cuda_graphs"] == state
            assert gpu.launches == 0
    assert (gpu.live, gpu.streams, gpu.graphs, gpu.retained) == ({}, {}, {}, 0)


def test_several_inputs_are_in_the_graph(gpu: Gpu) -> None:
    with opened((OTHER, IMAGE), kind=KIND) as session:
        for number, image in enumerate(images(4)):
            bias = np.full((1, 3), number, dtype=np.float32)
            out = session.infer({"image": image[None], "bias": bias})["logits"]
            np.testing.assert_allclose(out, image[None].mean((1, 2)) + number, rtol=1e-6)


def test_what_cannot_be_captured_runs_as_it_is_and_says_why(gpu: Gpu, captures: bool) -> None:
    sys.modules["tensorrt"].uncapturable = True  # type: ignore[attr-defined]
    with opened(kind=KIND) as session:
        check(session, 5)
        assert gpu.launches == 0
        assert gpu.graphs == {}
        if captures:
            state = session.describe()["cuda_graphs"]
            assert state.startswith("off: an inference cannot be captured: TensorRT failed on Pretended GPU")
            assert "operation not permitted when stream is capturing" in state
            # Tried once: in, and again in and out without.
            assert gpu.copies == 2 + 1 + 2 * 4
    assert (gpu.live, gpu.streams, gpu.graphs, gpu.capturing) == ({}, {}, {}, {})


def test_it_can_be_switched_off(gpu: Gpu) -> None:
    with opened(kind=KIND, cuda_graphs=False) as session:
        check(session, 3)
        assert session.describe()["cuda_graphs"] == "off: switched off"
    assert gpu.launches == 0


def test_a_dynamic_batch_is_not_captured(gpu: Gpu) -> None:
    with opened(BATCH[:1], BATCH[1:], kind=KIND) as session:
        for count in (1, 1, 4, 4):
            batch = images(count)
            np.testing.assert_allclose(session.infer({"image": batch})["logits"], batch.mean((1, 2)), rtol=1e-6)
        assert session.describe()["cuda_graphs"] == "off: the batch is dynamic"
    assert gpu.launches == 0


@pytest.mark.parametrize(("wanted", "strategy"), [(True, "whole graph"), (False, "disabled")])
def test_tensorrt_rtx_is_told_to_capture_by_itself(gpu: Gpu, wanted: bool, strategy: str) -> None:
    with opened(BATCH[:1], BATCH[1:], cuda_graphs=wanted) as session:
        session.infer({"image": images(1)})
        session.infer({"image": images(1)})
        assert session.describe()["cuda_graphs"] == ("on, by TensorRT-RTX" if wanted else "off: switched off")
    assert sys.modules["tensorrt_rtx"].strategies == [strategy] * 2  # type: ignore[attr-defined]
    assert gpu.launches == 0


def test_the_real_library_has_the_strategies() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    assert real.CudaGraphStrategy.DISABLED != real.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
