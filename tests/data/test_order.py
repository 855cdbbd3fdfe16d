"""The order of training images, balanced classes, class weights, held-back images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Dataset, Sample, class_weights, epoch_order, hold_back
from edgekit.errors import DataError


def _dataset(*counts: int, root: Path = Path("/data")) -> Dataset:
    samples = tuple(
        Sample(path=root / f"c{label}" / f"{index:03}.png", label=label)
        for label, count in enumerate(counts)
        for index in range(count)
    )
    return Dataset(samples=samples, classes=tuple(f"c{label}" for label in range(len(counts))))


def test_every_image_comes_once_in_another_order_each_epoch() -> None:
    data = _dataset(20, 30)
    first, second = (epoch_order(data, seed=1, epoch=epoch, balanced=False) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(data, seed=1, epoch=0, balanced=False)
    assert first != epoch_order(data, seed=2, epoch=0, balanced=False)


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), seed=st.integers(0, 99))
def test_balanced_classes_come_equally_often(counts: list[int], seed: int) -> None:
    data = _dataset(*counts)
    order = epoch_order(data, seed=seed, epoch=0, balanced=True)
    assert len(order) == sum(counts)
    seen = Counter(data.samples[index].label for index in order)
    assert set(seen) == {label for label, count in enumerate(counts) if count}
    assert max(seen.values()) - min(seen.values()) <= 1
    # Within a class no image comes twice more than another.
    for label in seen:
        times = Counter(index for index in order if data.samples[index].label == label)
        everyone = [times[index] for index, sample in enumerate(data.samples) if sample.label == label]
        assert max(everyone) - min(everyone) <= 1


def test_images_without_labels_cannot_be_balanced() -> None:
    flat = Dataset(samples=(Sample(path=Path("a.png"), label=None),), classes=None)
    with pytest.raises(DataError, match="cannot be balanced"):
        epoch_order(flat, seed=0, epoch=0, balanced=True)
    with pytest.raises(DataError, match="no class weights"):
        class_weights(flat)


def test_class_weights_are_inverse_to_the_counts() -> None:
    # 40 images, two classes that have any: 40 / (2 * 10) and 40 / (2 * 30).
    assert class_weights(_dataset(10, 30, 0)) == pytest.approx((2.0, 2 / 3, 1.0))


def test_held_back_images_mirror_the_classes_and_are_not_trained_on(tmp_path: Path) -> None:
    data = _dataset(40, 20, root=tmp_path)
    for number, sample in enumerate(data.samples):
        sample.path.parent.mkdir(exist_ok=True)
        sample.path.write_bytes(f"image {number:03}".encode())
    training, held = hold_back(data, 0.2, seed=3)
    assert Counter(sample.label for sample in held.samples) == {0: 8, 1: 4}
    assert {sample.path for sample in training.samples}.isdisjoint(sample.path for sample in held.samples)
    assert len(training) + len(held) == 60
    # A copy of a held-back image is not trained on.
    training.samples[0].path.write_bytes(held.samples[0].path.read_bytes())
    again, _ = hold_back(data, 0.2, seed=3)
    assert len(again) == len(training) - 1
    assert again.notes == ("1 images were left out of the training: their files equal held-back images",)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        hold_back(_dataset(5), share, seed=0)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    data = _dataset(1, root=tmp_path)
    with pytest.raises(DataError, match="none is left to train on"):
        hold_back(data, 0.5, seed=0)
