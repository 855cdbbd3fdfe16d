"""Images that are read again and again: in any order, bounded in memory, bad ones left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit.data.store as store_module
from edgekit.data import Dataset, ImageStore, Sample, read_frame
from edgekit.errors import DataError
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.tasks.base import ImageInput

SPEC = ImageInput(size=(8, 8))
BYTES = 8 * 8 * 3


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    generator = np.random.default_rng(0)
    samples = []
    for index in range(10):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), generator.integers(0, 256, (12, 9 + index, 3), dtype=np.uint8))
        samples.append(Sample(path=path, label=None))
    return Dataset(samples=tuple(samples), classes=None)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    seen: list[Path] = []

    def watched(path: Path, spec: ImageInput):  # type: ignore[no-untyped-def]
        seen.append(path)
        return read_frame(path, spec)

    monkeypatch.setattr(store_module, "read_frame", watched)
    return seen  # type: ignore[return-value]


def _expected(data: Dataset, index: int) -> np.ndarray:
    return resize_frame(read_frame(data.samples[index].path, SPEC), SPEC)


@pytest.mark.parametrize("kept", [0, 4, 10])
def test_the_pixels_are_those_of_the_runtime_in_the_order_asked_for(data: Dataset, kept: int) -> None:
    store = ImageStore(data, SPEC, keep_bytes=kept * BYTES)
    for _ in range(2):
        groups = [(3, 1, 4), (1, 5), (9, 2, 6, 6)]
        for group, images in zip(groups, store.batches(groups), strict=True):
            assert images.indices == group
            assert images.frame_shapes == tuple((12, 9 + index, 3) for index in group)
            for row, index in enumerate(group):
                np.testing.assert_array_equal(images.pixels[row], _expected(data, index))


def test_what_fits_into_memory_is_read_once(data: Dataset, reads: list[Path]) -> None:
    store = ImageStore(data, SPEC, keep_bytes=10 * BYTES)
    for _ in range(3):
        assert sum(len(images.indices) for images in store.batches([range(5), range(5, 10)])) == 10
    assert sorted(reads) == sorted(sample.path for sample in data.samples)


def test_memory_is_bounded(data: Dataset, reads: list[Path]) -> None:
    store = ImageStore(data, SPEC, keep_bytes=4 * BYTES)
    for _ in range(2):
        list(store.batches([range(10)]))
    assert len(reads) == 10 + 6
    assert store._pixels.nbytes == 4 * BYTES


def test_an_unreadable_image_is_left_out_and_counted_once(data: Dataset) -> None:
    data.samples[2].path.write_bytes(b"no image")
    store = ImageStore(data, SPEC)
    for _ in range(2):
        assert [images.indices for images in store.batches([(1, 2, 3), (2,)])] == [(1, 3), ()]
    assert [image.path for image in store.skipped] == [data.samples[2].path]


def test_too_many_unreadable_images_end_it(data: Dataset) -> None:
    for index in (1, 2):
        data.samples[index].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"too many unreadable images: 2 so far, of 10 \(1 may be skipped\)"):
        list(ImageStore(data, SPEC).batches([range(10)]))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        ImageStore(Dataset(samples=(), classes=None), SPEC)
