"""In which order a network sees its training images, how classes are balanced, and which images are held back.

As in :mod:`edgekit.data.sampling`, all of it depends on seeds and the order of the samples alone
(``random.Random.random()`` is the generator whose sequence Python promises to keep).
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from edgekit.data.dataset import Dataset
from edgekit.data.sampling import shared_images, stratified_sample
from edgekit.errors import DataError

__all__ = ["class_weights", "epoch_order", "hold_back"]


def epoch_order(dataset: Dataset, *, seed: int, epoch: int, balanced: bool) -> list[int]:
    """Returns as many indices as there are images, shuffled anew for each epoch.

    Args:
        dataset: The images.
        seed: Of the training.
        epoch: From 0.
        balanced: Every class that has images gets the same number of places, to within one: images of small classes
            come several times, of large ones some are left to later epochs. False: every image comes once.

    Raises:
        DataError: ``balanced`` for images without labels.
    """
    generator = random.Random(f"{seed}/{epoch}")
    everything = _shuffled(list(range(len(dataset))), generator)
    if not balanced:
        return everything
    members: dict[int, list[int]] = {}
    for index in everything:
        label = dataset.samples[index].label
        if label is None:
            raise DataError("images without labels cannot be balanced by class", hint="switch balancing off")
        members.setdefault(label, []).append(index)
    labels = _shuffled(sorted(members), generator)
    chosen: list[int] = []
    for rank, label in enumerate(labels):
        # The first classes of this epoch's random order take what does not divide evenly.
        wanted = len(everything) // len(labels) + (rank < len(everything) % len(labels))
        images = members[label]
        rounds = -(-wanted // len(images))
        chosen += [index for _ in range(rounds) for index in _shuffled(images, generator)][:wanted]
    return _shuffled(chosen, generator)


def class_weights(dataset: Dataset) -> tuple[float, ...]:
    """Returns a weight for each class, inverse to its number of images; over all images they average 1.

    A class of ``n`` images, of ``N`` in ``K`` classes that have any, weighs ``N / (K n)``; a class without images 1.

    Raises:
        DataError: The images have no labels.
    """
    if dataset.classes is None:
        raise DataError("images without labels have no class weights", hint="give one folder of images per class")
    counts = Counter(sample.label for sample in dataset.samples)
    total, classes = len(dataset), len(counts)
    return tuple(total / (classes * counts[label]) if counts[label] else 1.0 for label in range(len(dataset.classes)))


def hold_back(dataset: Dataset, share: float, *, seed: int) -> tuple[Dataset, Dataset]:
    """Splits off images that training never sees, in the classes' shares.

    Files of the training part that equal a held-back image byte for byte are left out and noted.

    Args:
        dataset: The whole set.
        share: Of the images; rounded, at least one image.
        seed: Of the choice.

    Returns:
        ``(training, held back)``.

    Raises:
        DataError: ``share`` is not between 0 and 1, or no image is left to train on.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of images to hold back: expected a number between 0 and 1, got {share}")
    held = stratified_sample(dataset, max(1, round(share * len(dataset))), seed)
    chosen = {sample.path for sample in held.samples}
    rest = replace(dataset, samples=tuple(sample for sample in dataset.samples if sample.path not in chosen))
    twins = shared_images(held, rest)
    training = tuple(sample for sample in rest.samples if sample.path not in twins)
    if not training:
        raise DataError(f"of {len(dataset)} images none is left to train on, {len(held)} are held back")
    note = f"{len(twins)} images were left out of the training: their files equal held-back images"
    return replace(rest, samples=training, notes=(*dataset.notes, *((note,) if twins else ()))), held


def _shuffled(items: list[int], generator: random.Random) -> list[int]:
    return [item for _, item in sorted((generator.random(), item) for item in items)]
