"""Images are read once, in bounded memory, and those that cannot be read are remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.compiler.derived import Derived
from edgekit.compiler.images import Images
from edgekit.data import read_folder
from edgekit.errors import DataError
from edgekit.targets import load_target
from tests.compiler.world import write_images
from tests.networks import CONTEXT, LABELS, folded, spec


def images(root: Path, keep_bytes: int = 1 << 20) -> Images:
    return Images(read_folder(root, LABELS), spec(), keep_bytes=keep_bytes)


def test_a_second_reading_needs_no_files(tmp_path: Path) -> None:
    found = images(write_images(tmp_path / "data", count=3))
    first = [image.pixels for image in found]
    for path in (tmp_path / "data").rglob("*.png"):
        path.unlink()
    assert len(first) == len(found) == 12
    assert all(np.array_equal(one, two.pixels) for one, two in zip(first, found, strict=True))
    assert first[0].shape == (16, 16, 3)


def test_only_what_exceeds_the_memory_is_read_again(tmp_path: Path) -> None:
    found = images(write_images(tmp_path / "data", count=3), keep_bytes=5 * 16 * 16 * 3)
    first = [image.pixels for image in found]
    assert [image.pixels.tobytes() for image in found] == [pixels.tobytes() for pixels in first]
    for path in (tmp_path / "data").rglob("*.png"):
        path.unlink()
    reader = iter(found)
    assert [next(reader).pixels.tobytes() for _ in range(5)] == [pixels.tobytes() for pixels in first[:5]]
    with pytest.raises(DataError, match="too many unreadable images"):
        next(reader)


def test_a_reading_goes_on_where_an_earlier_one_stopped(tmp_path: Path) -> None:
    found = images(write_images(tmp_path / "data", count=3))
    first, second = iter(found), iter(found)
    begun = [next(first).pixels.tobytes() for _ in range(4)]
    for sample in found.dataset.samples[:4]:
        sample.path.unlink()
    assert [next(second).pixels.tobytes() for _ in range(4)] == begun
    # Both readers, in turns, see the rest once each.
    others = [(next(second).sample, next(first).sample) for _ in range(8)]
    assert [one for one, _ in others] == [other for _, other in others] == list(found.dataset.samples[4:])
    assert next(first, None) is next(second, None) is None
    assert [image.sample for image in found] == list(found.dataset.samples)


def test_bad_images_before_what_is_read_again_count(tmp_path: Path) -> None:
    found = images(write_images(tmp_path / "data", count=3), keep_bytes=5 * 16 * 16 * 3)
    found.dataset.samples[1].path.write_bytes(b"")
    assert len(list(found)) == len(list(found)) == 11
    found.dataset.samples[9].path.write_bytes(b"")
    with pytest.raises(DataError, match="2 so far, of 12"):
        list(found)


def test_a_reading_that_stops_early_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    found = images(write_images(tmp_path / "data", count=3))
    (tmp_path / "data" / "red" / "red001.png").write_bytes(b"")
    assert next(iter(found)) is not None
    assert len(list(found)) == 11
    assert len(list(found)) == 11
    assert [image.brief.split(":")[0] for image in found.skipped] == ["red/red001.png"]


def test_batches_hold_every_image_once(tmp_path: Path) -> None:
    batches = [batch[0].shape for batch in images(write_images(tmp_path / "data", count=3)).batches(5)]
    assert batches == [(5, 16, 16, 3), (5, 16, 16, 3), (2, 16, 16, 3)]


def test_one_program_is_exported_and_measured_once(tmp_path: Path) -> None:
    program = folded("residual")
    evaluation = images(write_images(tmp_path / "data", count=3))
    golden = {"image": np.stack([image.pixels for image in evaluation])[:2]}
    derived = Derived(floating=program, golden=golden, evaluation=evaluation, dynamic_batch=False, context=CONTEXT)
    portable = load_target("x86-cpu").portable
    fp32, bf16 = derived.graph(program, portable, "fp32"), derived.graph(program, portable, "bf16")
    assert fp32.data is bf16.data
    assert (fp32.precision, bf16.precision) == ("fp32", "bf16")
    assert derived.answers(program) is derived.answers(program)
    assert derived.reference is derived.metric(program, label="again")
    half = derived.half(program, limit=0.01, node_limit=0.01)
    assert derived.half(program, limit=0.01, node_limit=0.01) is half
    assert derived.answers(half.program) == half.answers
    assert derived.graph(half.program, portable, "fp16").data != fp32.data
