"""Calibration images as passes see them: streamed again as often as needed, and split into fitted and held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from edgekit.errors import UserError

__all__ = ["Batch", "CalibrationData"]

Batch = tuple[torch.Tensor, ...]
"""One tensor per graph input, (images, ...), in the graph's input dtype and layout."""

# Every fourth image. Images come in random order within each round of classes, so both parts see every class.
_EVERY = 4


def _joined(images: list[Batch]) -> Batch:
    return tuple(torch.cat(tensors) for tensors in zip(*images, strict=True))


def _numbered(index: int) -> str:
    return f"image {index + 1}"


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """The images that a pass may look at.

    What is *fitted* (a bias, a rounding, a channel scale) is fitted on :meth:`fit` and judged on :meth:`held_out`; the
    two share no image. Ranges are no fit in this sense: they are taken from all images.

    Attributes:
        source: Gives a fresh iterator over batches; always the same images in the same order.
        count: How many images it gives; fewer where some could not be read.
        name_of: What image number ``index`` is called, for messages: its path, where there is one.
    """

    source: Callable[[], Iterator[Batch]]
    count: int
    name_of: Callable[[int], str] = _numbered

    def batches(self) -> Iterator[Batch]:
        """Yields all images."""
        return self.source()

    def example(self) -> Batch:
        """Returns the first batch.

        Raises:
            UserError: There is no image at all.
        """
        first = next(self.source(), None)
        if first is None:
            raise UserError("calibration: no image could be used", hint="give a folder with readable images (--data)")
        return first

    def fit(self, limit: int) -> Iterator[Batch]:
        """Yields at most ``limit`` images that corrections may be fitted on: three of every four."""
        return self._where(lambda index: index % _EVERY != _EVERY - 1, limit)

    def held_out(self, limit: int) -> Iterator[Batch]:
        """Yields at most ``limit`` images that :meth:`fit` never gives: one of every four."""
        return self._where(lambda index: index % _EVERY == _EVERY - 1, limit)

    def _where(self, wanted: Callable[[int], bool], limit: int) -> Iterator[Batch]:
        """Yields chosen images in batches as large as the source's: small ones take longer per image."""
        start = taken = full = 0
        waiting: list[Batch] = []
        for batch in self.source():
            size = len(batch[0])
            full = max(full, size)
            chosen = [index for index in range(size) if wanted(start + index)][: limit - taken]
            start, taken = start + size, taken + len(chosen)
            waiting += [tuple(tensor[index : index + 1] for tensor in batch) for index in chosen]
            while len(waiting) >= full:
                yield _joined(waiting[:full])
                waiting = waiting[full:]
            if taken >= limit:
                break
        if waiting:
            yield _joined(waiting)
