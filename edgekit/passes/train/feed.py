"""Batches for the loop: read, varied and normalised, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from edgekit.augmentation import Augmentation
from edgekit.config import to_dict
from edgekit.data import BadImage, Dataset, ImageStore, epoch_order
from edgekit.errors import DataError, UserError
from edgekit.objectives import TaskObjective
from edgekit.passes.train.augment import Augmenter
from edgekit.passes.train.options import TrainOptions
from edgekit.passes.train.pixels import PixelScale
from edgekit.passes.train.world import World
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["Feed", "TrainBatch", "TrainData", "described", "seed_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainBatch:
    """What one step of one process trains on.

    Attributes:
        images: (N, C, H, W) float32, normalised, on the process's device.
        targets: One entry an image, on the same device; None without labels.
    """

    images: torch.Tensor
    targets: torch.Tensor | None


class TrainData(Protocol):
    """A source of batches."""

    @property
    def images(self) -> int:
        """How many images there are."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""

    def epoch(self, epoch: int, world: World) -> Iterator[TrainBatch]:
        """Yields the batches of an epoch for one process; the same ones whenever it is asked for them."""

    def to_dict(self) -> dict[str, Any]:
        """Returns everything that the batches depend on, as plain JSON-able data, for the check of checkpoints."""


class Feed:
    """Batches of a data set.

    Args:
        dataset: The images to train on.
        image: How the network takes them.
        task: Turns labels into targets.
        options: Give batch size, seed and workers.
        augmentation: How images are varied.
        labelled: False gives no targets, whether there are labels or not.
        balanced: Every class as often as any other; see :func:`edgekit.data.epoch_order`.

    Raises:
        DataError: There are no images, or labels are asked for and there are none.
        UserError: The augmentation does not fit the pixels, or batches cannot be formed.
    """

    def __init__(
        self,
        dataset: Dataset,
        image: ImageInput,
        task: TaskObjective,
        options: TrainOptions,
        *,
        augmentation: Augmentation,
        labelled: bool,
        balanced: bool = False,
    ) -> None:
        if (labelled or balanced) and not dataset.labelled:
            raise DataError(
                "the training images have no labels, and the loss or the balancing needs them",
                hint="give one folder of images per class; without labels only distillation works (alpha = 1)",
            )
        self._store = ImageStore(dataset, image, workers=options.workers)
        self._dataset, self._image, self._task, self._options = dataset, image, task, options
        self._augmentation = augmentation
        self._augmenter = Augmenter(augmentation, image)
        self._labelled, self._balanced = labelled, balanced
        self._batch = min(options.batch_size, len(dataset))

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self._dataset)

    @property
    def steps(self) -> int:
        """Steps in an epoch: the images over the batch size, rounded down."""
        return len(self._dataset) // self._batch

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """The images that could not be read so far."""
        return self._store.skipped

    def epoch(self, epoch: int, world: World) -> Iterator[TrainBatch]:
        """Yields the batches of an epoch; the global random state of torch is used and seeded.

        Raises:
            DataError: Too many images cannot be read.
            UserError: A batch has fewer images than there are processes.
        """
        if self._batch < world.size:
            raise UserError(
                f"a batch of {self._batch} images cannot be shared by {world.size} processes",
                hint="raise batch_size, or start fewer processes",
            )
        order = epoch_order(self._dataset, seed=self._options.seed, epoch=epoch, balanced=self._balanced)
        groups = (world.part(order[step * self._batch : (step + 1) * self._batch]) for step in range(self.steps))
        scale = PixelScale(self._image, world.device)
        for step, read in enumerate(self._store.batches(groups)):
            if not read.indices:
                raise DataError(f"none of the images of step {step + 1} could be read", hint="raise batch_size")
            targets = None
            if self._labelled:
                targets = self._task.encode([self._dataset.samples[index] for index in read.indices])
                targets = targets.to(world.device)
            torch.manual_seed(seed_of(self._options.seed, "augmentation", epoch, step, world.rank))
            shares = scale.shares(torch.from_numpy(read.pixels))
            shares, targets = self._augmenter(shares, targets, self._task.mixed)
            yield TrainBatch(images=scale.normalised(shares), targets=targets)

    def to_dict(self) -> dict[str, Any]:
        """Returns the images' names and labels as a digest, and how they are read and varied."""
        return {
            **described(self._dataset),
            "input": to_dict(self._image),
            "augmentation": to_dict(self._augmentation),
            "labelled": self._labelled,
            "balanced": self._balanced,
        }


def described(dataset: Dataset) -> dict[str, Any]:
    """Returns number, names and labels of images, as plain data; their pixels are not looked at."""
    names = hashlib.sha256()
    for sample in dataset.samples:
        # Folder and file: the whole may have been moved since.
        names.update(f"{sample.path.parent.name}/{sample.path.name}\t{sample.label}\n".encode())
    return {"images": len(dataset), "names": names.hexdigest()}


def seed_of(seed: int, purpose: str, *numbers: int) -> int:
    """Returns a seed for one purpose at one place, unlike those of all others.

    >>> seed_of(0, "dropout", 1, 2) == seed_of(0, "dropout", 1, 2) != seed_of(0, "dropout", 2, 1)
    True
    """
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
