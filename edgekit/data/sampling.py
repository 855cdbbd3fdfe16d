"""Seeded choice of images: for calibration, for evaluation, and so that the two never share an image.

The choice depends on the seed and the sorted paths alone: not on the file system's order, nor on where the folder lies,
nor on the Python version (``random.Random(seed).random()`` is the generator whose sequence Python promises to keep).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgekit.data.dataset import Dataset, Sample
from edgekit.errors import DataError

__all__ = [
    "MIN_CALIBRATION_IMAGES",
    "Sampling",
    "calibration_warnings",
    "choose",
    "shared_images",
    "split",
    "stratified_sample",
]

Sampling = Literal["stratified", "random", "first"]

MIN_CALIBRATION_IMAGES = 32
"""Below this, ranges rest on too few images and accuracy may collapse: compile warns."""

_SHOWN = 5


def choose(dataset: Dataset, count: int, *, sampling: Sampling, seed: int) -> Dataset:
    """Returns ``count`` images (or all, if there are fewer).

    Args:
        dataset: Where to choose from.
        count: How many images.
        sampling: ``stratified``: see :func:`stratified_sample`; ``random``: without regard to classes; ``first``: in
            path order.
        seed: Seed of the choice; ``first`` needs none.

    Raises:
        DataError: ``count`` is below 1.
    """
    if count < 1:
        raise DataError(f"expected to choose at least 1 image, got {count}")
    return replace(dataset, samples=tuple(_ordered(dataset.samples, sampling, seed)[:count]))


def stratified_sample(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Returns ``count`` images (or all, if there are fewer) that mirror the classes' shares.

    Every class gives one image before any gives a second; beyond that each class gives in proportion to its size, to
    within one image. Every prefix of the result is itself stratified, so a smaller sample with the same seed is part of
    a larger one. Without labels the choice is random.

    Raises:
        DataError: ``count`` is below 1.
    """
    return choose(dataset, count, sampling="stratified", seed=seed)


def split(
    dataset: Dataset, *, calibration: int, sampling: Sampling, seed: int, max_eval: int | None
) -> tuple[Dataset, Dataset]:
    """Splits into a calibration set and an evaluation set that share no image, neither by path nor by content.

    A labelled set that is too small for both gives calibration half of its images, but at least
    :data:`MIN_CALIBRATION_IMAGES`; the smaller calibration set is noted. An image of the evaluation part whose file is
    byte for byte a calibration image is left out, and the number is noted.

    Args:
        dataset: The whole set.
        calibration: Images wanted for calibration.
        sampling: How calibration images are chosen.
        seed: Seed of both choices.
        max_eval: At most this many evaluation images, stratified; None keeps all.

    Returns:
        ``(calibration, evaluation)``; the second may be empty when the set is small, which is noted in the first.

    Raises:
        DataError: ``calibration`` or ``max_eval`` is below 1, the set is empty, or a file cannot be read.
    """
    if calibration < 1 or (max_eval is not None and max_eval < 1):
        raise DataError(f"expected at least 1 calibration and 1 evaluation image, got {calibration} and {max_eval}")
    if not dataset.samples:
        raise DataError("the data set is empty", hint="give a folder with at least one image")
    taken = min(calibration, len(dataset))
    notes: list[str] = []
    if dataset.labelled:
        half = len(dataset) - len(dataset) // 2
        taken = min(taken, max(half, MIN_CALIBRATION_IMAGES))
        if taken < min(calibration, len(dataset)):
            notes.append(
                f"calibration takes {taken} of {len(dataset)} images instead of {calibration}: "
                f"the other {len(dataset) - taken} are kept for evaluation"
            )
    ordered = _ordered(dataset.samples, sampling, seed)
    chosen, rest = ordered[:taken], ordered[taken:]
    duplicates = _same_content(chosen, rest)
    kept = [sample for sample in rest if sample.path not in duplicates]
    evaluation = tuple(_ordered(kept, "stratified", seed)[:max_eval])
    shared = f"{len(duplicates)} images were left out of the evaluation: their files equal calibration images"
    left_out = (shared,) if duplicates else ()
    if not evaluation:
        notes.append("no image is left for evaluation")
    return (
        replace(dataset, samples=tuple(chosen), notes=(*dataset.notes, *notes)),
        replace(dataset, samples=evaluation, notes=(*dataset.notes, *left_out)),
    )


def calibration_warnings(dataset: Dataset, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Says what is doubtful about a calibration set; empty when nothing is.

    Args:
        dataset: The chosen calibration images.
        classes: The task's class names, or None for a task without classes.
    """
    warnings: list[str] = []
    if len(dataset) < MIN_CALIBRATION_IMAGES:
        warnings.append(
            f"only {len(dataset)} calibration images (at least {MIN_CALIBRATION_IMAGES}, better 300): "
            "ranges may be too narrow and accuracy may suffer"
        )
    if classes is not None and dataset.classes is not None:
        present = {dataset.classes[sample.label] for sample in dataset.samples if sample.label is not None}
        missing = [name for name in classes if name not in present]
        if missing:
            rest = len(missing) - _SHOWN
            names = ", ".join(missing[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
            warnings.append(f"{len(missing)} of {len(classes)} classes have no calibration image: {names}")
    return tuple(warnings)


def shared_images(first: Dataset, second: Dataset) -> frozenset[Path]:
    """Returns the paths in ``second`` of files that are, byte for byte, in ``first`` too.

    Raises:
        DataError: A file cannot be read.
    """
    return _same_content(first.samples, second.samples)


def _ordered(samples: Sequence[Sample], sampling: Sampling, seed: int) -> list[Sample]:
    """Orders all samples so that the first n are the choice of size n."""
    by_path = sorted(samples, key=lambda sample: sample.path.as_posix())
    if sampling == "first":
        return by_path
    generator = random.Random(seed)
    keyed = sorted((generator.random(), index) for index in range(len(by_path)))
    shuffled = [by_path[index] for _, index in keyed]
    if sampling == "random":
        return shuffled
    sizes = Counter(sample.label for sample in shuffled)
    seen: Counter[int | None] = Counter()
    places: list[tuple[float, int]] = []
    for index, sample in enumerate(shuffled):
        rank = seen[sample.label]
        seen[sample.label] += 1
        # The k-th image of a class of n stands at (k + 1/2) / n of the whole; first images come before all others.
        places.append((0.0 if rank == 0 else (rank + 0.5) / sizes[sample.label], index))
    return [shuffled[index] for _, index in sorted(places)]


def _same_content(chosen: Sequence[Sample], rest: Sequence[Sample]) -> frozenset[Path]:
    """Returns the paths in ``rest`` whose bytes equal a file in ``chosen``; only files of equal size are read."""
    sizes = {sample.path: _size(sample.path) for sample in (*chosen, *rest)}
    chosen_sizes = {sizes[sample.path] for sample in chosen}
    suspects = [sample.path for sample in rest if sizes[sample.path] in chosen_sizes]
    suspect_sizes = {sizes[path] for path in suspects}
    hashes = {_digest(sample.path) for sample in chosen if sizes[sample.path] in suspect_sizes}
    return frozenset(path for path in suspects if _digest(path) in hashes)


def _size(path: Path) -> int:
    # A broken link has no content to share; reading the frame reports it.
    return path.stat().st_size if path.exists() else -1


def _digest(path: Path) -> str:
    if not path.exists():
        return f"no file: {path}"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}", hint="check its permissions") from error
