from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.splits import link_images, split_images
from edgekit.data import Dataset, Sample


def dataset(root: Path, *, per_class: int) -> Dataset:
    samples = [
        Sample(path=root / name / f"{index:03d}.png", label=label)
        for label, name in enumerate(("cat", "dog"))
        for index in range(per_class)
    ]
    return Dataset(samples=tuple(samples), classes=("cat", "dog"))


def names(part: Dataset) -> list[str]:
    return [f"{sample.path.parent.name}/{sample.path.name}" for sample in part.samples]


def test_every_image_is_on_one_side(tmp_path: Path) -> None:
    whole = dataset(tmp_path, per_class=20)
    kept, held = split_images(whole, held_back=10)
    assert sorted(names(kept) + names(held)) == sorted(names(whole))
    assert Counter(sample.label for sample in held.samples) == {0: 5, 1: 5}


def test_the_split_is_the_same_wherever_the_folder_lies_and_in_whatever_order(tmp_path: Path) -> None:
    _, held = split_images(dataset(tmp_path / "a", per_class=20), held_back=10)
    other = dataset(tmp_path / "b", per_class=20)
    _, again = split_images(replace(other, samples=other.samples[::-1]), held_back=10)
    assert names(again) == names(held)
    assert names(held)[:5] != [f"cat/{index:03d}.png" for index in range(5)]


@pytest.mark.parametrize("held_back", [5, 40])
def test_a_number_that_the_classes_cannot_give(tmp_path: Path, held_back: int) -> None:
    with pytest.raises(ValueError, match="2 classes with at least 20 images"):
        split_images(dataset(tmp_path, per_class=20), held_back=held_back)


def test_links_lead_to_the_images(tmp_path: Path) -> None:
    whole = dataset(tmp_path / "images", per_class=3)
    for sample in whole.samples:
        sample.path.parent.mkdir(parents=True, exist_ok=True)
        sample.path.write_text(sample.path.name, encoding="utf-8")
    link_images(whole, tmp_path / "links")
    assert (tmp_path / "links" / "dog" / "002.png").read_text(encoding="utf-8") == "002.png"
    assert len(list((tmp_path / "links").rglob("*.png"))) == 6
