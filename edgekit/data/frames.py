"""Iterates over the frames of a data set, skipping what cannot be read, with a count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.data.dataset import Dataset, Sample
from edgekit.data.image import read_frame
from edgekit.errors import DataError
from edgekit.runtime.tasks.base import Frame, ImageInput

__all__ = ["BadImage", "Frames", "iterate"]

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that was skipped, and why."""

    path: Path
    reason: str

    @property
    def brief(self) -> str:
        """Folder, file name and reason: what a report may carry to other machines."""
        return f"{self.path.parent.name}/{self.path.name}: {self.reason.removeprefix(f'{self.path}: ')}"


class Frames:
    """The frames of a data set, read one at a time, so that memory does not grow with their number.

    Each iteration starts anew. :attr:`skipped` and :attr:`position`, the number of samples behind it, belong to the
    latest one.
    """

    def __init__(
        self, dataset: Dataset, spec: ImageInput, max_bad_fraction: float, start: int, skipped: Sequence[BadImage]
    ) -> None:
        self._dataset = dataset
        self._spec = spec
        self._allowed = max(1, int(max_bad_fraction * len(dataset)))
        self._start, self._skipped_before = start, tuple(skipped)
        self._skipped: list[BadImage] = []
        self.position = start

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """The images that the latest iteration left out so far."""
        return tuple(self._skipped)

    def __iter__(self) -> Iterator[tuple[Sample, Frame]]:
        self._skipped, self.position = [*self._skipped_before], self._start
        for sample in self._dataset.samples[self._start :]:
            self.position += 1
            try:
                frame = read_frame(sample.path, self._spec)
            except DataError as error:
                self._skip(sample, error)
                continue
            yield sample, frame

    def _skip(self, sample: Sample, error: DataError) -> None:
        self._skipped.append(BadImage(path=sample.path, reason=error.message))
        bad, total = len(self._skipped), len(self._dataset)
        if bad > self._allowed or bad == total:
            shown = "\n  ".join(image.reason for image in self._skipped[:_SHOWN])
            raise DataError(
                f"too many unreadable images: {bad} so far, of {total} ({self._allowed} may be skipped):\n  {shown}",
                hint=error.hint if error.hint is not None else "repair or remove these files",
            ) from error


def iterate(
    dataset: Dataset,
    spec: ImageInput,
    *,
    max_bad_fraction: float = 0.05,
    start: int = 0,
    skipped: Sequence[BadImage] = (),
) -> Frames:
    """Returns an iterable of ``(sample, frame)`` that skips images that cannot be read.

    Args:
        dataset: The images.
        spec: The input that the frames are for; see :func:`edgekit.data.read_frame`.
        max_bad_fraction: Largest share of images that may be skipped; a single one may always be, unless it is the only
            image.
        start: The sample to begin with; the first is 0.
        skipped: Those before ``start`` that are known to be unreadable; they count.

    Returns:
        An iterable whose ``skipped`` says, during and after the iteration, which images were left out and why.

    Raises:
        DataError: While iterating: more images than allowed, or all of them, cannot be read; or the data set is empty.
    """
    if not dataset.samples:
        raise DataError("the data set is empty", hint="give a folder with at least one image")
    return Frames(dataset, spec, max_bad_fraction, start, skipped)
