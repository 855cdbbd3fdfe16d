"""The training images that training does not see: recipes and options are chosen on them, never on the test images."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.data import Dataset, Sample

__all__ = ["HELD_BACK", "link_images", "split_images"]

HELD_BACK = 1000
_SEED = 0


def split_images(dataset: Dataset, *, held_back: int = HELD_BACK) -> tuple[Dataset, Dataset]:
    """Splits labelled images; the same images give the same split.

    Args:
        dataset: The images, one folder per class.
        held_back: How many to hold back, the same number of each class.

    Returns:
        The images to train and calibrate on, and those held back, class by class in the order of the paths.

    Raises:
        ValueError: The number cannot be had evenly from the classes.
    """
    classes: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(dataset.samples, key=lambda sample: sample.path):
        classes[sample.path.parent.name].append(sample)
    per_class, rest = divmod(held_back, max(1, len(classes)))
    fewest = min(map(len, classes.values()), default=0)
    if rest != 0 or per_class >= fewest:
        raise ValueError(
            f"expected classes that give {held_back} images evenly and keep some, found {len(classes)} classes with at "
            f"least {fewest} images; hold back another number"
        )
    generator = np.random.default_rng(_SEED)
    kept: list[Sample] = []
    held: list[Sample] = []
    for _, members in sorted(classes.items()):
        chosen = set(generator.choice(len(members), per_class, replace=False).tolist())
        for index, sample in enumerate(members):
            (held if index in chosen else kept).append(sample)
    return replace(dataset, samples=tuple(kept)), replace(dataset, samples=tuple(held))


def link_images(dataset: Dataset, root: Path) -> None:
    """Makes a folder of links to the images, with one folder per class."""
    for sample in dataset.samples:
        link = root / sample.path.parent.name / sample.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(sample.path.resolve())
