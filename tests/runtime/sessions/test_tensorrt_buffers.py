"""An integrated GPU works in the host's memory: pretended, its addresses differ from the host's as they may there."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import StageError
from edgekit.runtime.tensorrt import FLAVOURS
from edgekit.tensorspec import TensorSpec
from tests.runtime.nvidia import MEMORY_BYTES, Gpu
from tests.runtime.sessions.plans import BATCH, IMAGE, OTHER, images, opened


@pytest.mark.parametrize("kind", FLAVOURS)
def test_an_integrated_gpu_is_sent_no_copies(gpu: Gpu, kind: str) -> None:
    gpu.integrated = True
    with opened((IMAGE, OTHER), kind=kind) as session:
        assert session.describe()["zero_copy"] == "on"
        # For each request two inputs and an output, and nothing besides.
        assert len(gpu.live) == len(gpu.mapped) == session.in_flight * 3
        for number, image in enumerate(images(5)):
            bias = np.full((1, 3), number, dtype=np.float32)
            out = session.infer({"image": image[None], "bias": bias})["logits"]
            np.testing.assert_allclose(out, image[None].mean((1, 2)) + number, rtol=1e-6)
            assert out.flags.owndata
    assert gpu.copies == 0
    assert (gpu.live, gpu.mapped, gpu.streams, gpu.graphs, gpu.retained) == ({}, {}, {}, {}, 0)


def test_frames_may_be_overwritten_and_results_are_the_callers(gpu: Gpu) -> None:
    gpu.integrated = True
    with opened(kind="tensorrt-plan") as session:
        frame, tickets, expected, kept = images(1), [], [], []
        for step in range(6):
            frame[...] = images(1, seed=step)
            expected.append(frame.mean((1, 2)))
            tickets.append(session.submit({"image": frame}))
        frame[...] = 0
        kept = [session.collect(ticket)["logits"] for ticket in tickets]
        session.infer({"image": frame})
        np.testing.assert_allclose(np.concatenate(kept), np.concatenate(expected), rtol=1e-6)


def test_a_dynamic_batch_uses_the_front_of_the_memory(gpu: Gpu) -> None:
    gpu.integrated = True
    with opened(BATCH[:1], BATCH[1:]) as session:
        for count in (4, 1, 3):
            batch = images(count, seed=count)
            np.testing.assert_allclose(session.infer({"image": batch})["logits"], batch.mean((1, 2)), rtol=1e-6)
    assert gpu.copies == 0


def test_a_discrete_gpu_keeps_its_copies(gpu: Gpu) -> None:
    with opened(cuda_graphs=False) as session:
        session.infer({"image": images(1)})
        assert session.describe()["zero_copy"] == "off: the GPU has memory of its own"
    assert gpu.copies == 2


def test_where_mapping_fails_there_are_copies_and_the_reason(gpu: Gpu) -> None:
    gpu.integrated, gpu.mappable = True, False
    with opened(kind="tensorrt-plan", cuda_graphs=False) as session:
        image = images(1)
        np.testing.assert_allclose(session.infer({"image": image})["logits"], image.mean((1, 2)), rtol=1e-6)
        state = session.describe()["zero_copy"].lower().replace("_", " ")
        assert state.startswith("off: cuda failed")
        assert "not supported" in state
    assert gpu.copies == 2
    assert (gpu.live, gpu.retained) == ({}, 0)


def test_too_little_memory_is_an_error_there_too(gpu: Gpu) -> None:
    gpu.integrated = True
    huge = TensorSpec(name="image", dtype="uint8", shape=(1, MEMORY_BYTES, 2, 3))
    with pytest.raises(StageError, match="memory"):
        opened((huge,))
    assert (gpu.live, gpu.mapped, gpu.streams, gpu.retained) == ({}, {}, {}, 0)
