"""Skipping unreadable images: counted, named, and bounded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data import Dataset, iterate, read_folder
from edgekit.errors import DataError
from edgekit.runtime.tasks.base import ImageInput

SPEC = ImageInput(size=(8, 8))


def make_folder(root: Path, *, good: int, bad: int) -> Dataset:
    for number in range(good):
        cv2.imencode(".png", np.full((4, 4, 3), number % 256, np.uint8))[1].tofile(root / f"good{number:03}.png")
    for number in range(bad):
        (root / f"bad{number:03}.png").write_bytes(b"broken")
    return read_folder(root, None)


def test_a_few_bad_images_are_skipped_and_named(tmp_path: Path) -> None:
    frames = iterate(make_folder(tmp_path, good=38, bad=2), SPEC)
    for _ in range(2):
        assert sum(1 for _ in frames) == 38
        assert [image.path.name for image in frames.skipped] == ["bad000.png", "bad001.png"]
        assert "cannot decode" in frames.skipped[0].reason


@pytest.mark.parametrize(("good", "bad"), [(37, 3), (0, 1), (0, 5), (1, 2)])
def test_too_many_or_all_bad_images_stop_the_job(tmp_path: Path, good: int, bad: int) -> None:
    frames = iterate(make_folder(tmp_path, good=good, bad=bad), SPEC)
    with pytest.raises(DataError, match=r"too many unreadable images") as caught:
        list(frames)
    assert "bad000.png" in caught.value.message


def test_one_bad_image_among_few_may_be_skipped(tmp_path: Path) -> None:
    frames = iterate(make_folder(tmp_path, good=3, bad=1), SPEC)
    assert len(list(frames)) == 3
    assert len(frames.skipped) == 1


def test_the_error_of_a_wrong_pixel_type_keeps_its_hint(tmp_path: Path) -> None:
    dataset = make_folder(tmp_path, good=3, bad=0)
    with pytest.raises(DataError, match="expected uint16 pixels, found uint8") as caught:
        list(iterate(dataset, ImageInput(size=(8, 8), dtype="uint16")))
    assert caught.value.hint is not None
    assert "dtype" in caught.value.hint


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        iterate(Dataset(samples=(), classes=None), SPEC)
