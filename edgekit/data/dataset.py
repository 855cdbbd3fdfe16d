"""A data set as a list of paths and labels; pixels are read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DataError

__all__ = ["Dataset", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image.

    Attributes:
        path: The image file.
        label: Index into :attr:`Dataset.classes`; None when the image has no label.
    """

    path: Path
    label: int | None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images with their labels.

    Attributes:
        samples: The images, in the order in which they are read.
        classes: Class names that labels index; None when the images have no labels.
        notes: What was decided while the set was made (classes without images, duplicates left out), for reports.
        ignored: Files in the folder that are no images by their suffix.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    ignored: int = 0

    def __post_init__(self) -> None:
        for sample in self.samples:
            if (sample.label is None) != (self.classes is None):
                state = "has no label" if sample.label is None else f"has label {sample.label}"
                raise DataError(
                    f"{sample.path}: {state}, in a data set {'with' if self.classes is not None else 'without'} classes"
                )
            if sample.label is not None and self.classes is not None and not 0 <= sample.label < len(self.classes):
                raise DataError(f"{sample.path}: label {sample.label} is not one of {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.classes is not None
