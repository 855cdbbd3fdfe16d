"""Images for many passes over one data set: decoded once where memory allows, in worker threads, in any order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.data.dataset import Dataset
from edgekit.data.frames import BadImage
from edgekit.data.image import read_frame
from edgekit.errors import DataError
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["KEEP_BYTES", "ImageStore", "Images"]

KEEP_BYTES = 512 << 20
"""Decoded images are kept in memory up to this many bytes: 170,000 of 32x32 pixels, 3,500 of 224x224."""

# Batches that are read ahead of the one in use.
_AHEAD = 2
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Images:
    """Some images of a data set.

    Attributes:
        indices: Which of the data set's samples they are; those that could not be read are left out.
        pixels: (N, H, W, C) at the model's size, in the spec's pixel type, colour in BGR order.
        frame_shapes: Shape of each frame before the resize.
    """

    indices: tuple[int, ...]
    pixels: npt.NDArray[Any]
    frame_shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class _Read:
    index: int
    pixels: npt.NDArray[Any]
    frame_shape: tuple[int, ...]


class ImageStore:
    """The images of a data set at the model's size, for readers who want them again and again, in other orders.

    The first that are read, as many as fit into ``keep_bytes``, stay in memory as decoded pixels; the others are read
    again each time. An image that cannot be read is left out wherever it is asked for, and counted once.

    Args:
        dataset: The images.
        spec: Says how they are read and resized.
        keep_bytes: Bound of the memory for pixels.
        workers: Threads that read and decode.
        max_bad_fraction: Largest share of images that may be unreadable; a single one may always be, unless it is the
            only image.

    Raises:
        DataError: The data set is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: ImageInput,
        *,
        keep_bytes: int = KEEP_BYTES,
        workers: int = 2,
        max_bad_fraction: float = 0.05,
    ) -> None:
        if not dataset.samples:
            raise DataError("the data set is empty", hint="give a folder with at least one image")
        self.dataset = dataset
        self._spec, self._workers = spec, workers
        self._allowed = max(1, int(max_bad_fraction * len(dataset)))
        shape = (*spec.size, spec.channels)
        item_bytes = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
        # Reserved at once and touched as images come: the system gives memory only for what is written.
        self._pixels = np.empty((min(len(dataset), keep_bytes // item_bytes), *shape), dtype=spec.dtype)
        self._places: dict[int, int] = {}
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._bad: dict[int, BadImage] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """The images that could not be read so far, in the data set's order."""
        return tuple(self._bad[index] for index in sorted(self._bad))

    def batches(self, groups: Iterable[Sequence[int]]) -> Iterator[Images]:
        """Yields the images of each group of indices, reading ahead while the caller works.

        Raises:
            DataError: More images than allowed, or all of them, cannot be read.
        """
        with ThreadPoolExecutor(self._workers, thread_name_prefix="edgekit-images") as pool:
            waiting: deque[tuple[Sequence[int], list[Future[_Read | None]]]] = deque()
            for group in groups:
                missing = [index for index in group if index not in self._places]
                waiting.append((group, [pool.submit(self._read, index) for index in missing]))
                if len(waiting) > _AHEAD:
                    yield self._collected(*waiting.popleft())
            while waiting:
                yield self._collected(*waiting.popleft())

    def _collected(self, group: Sequence[int], futures: list[Future[_Read | None]]) -> Images:
        found = (future.result() for future in futures)
        loose = {read.index: read for read in found if read is not None}
        indices = [index for index in group if index in self._places or index in loose]
        pixels = np.empty((len(indices), *self._pixels.shape[1:]), dtype=self._pixels.dtype)
        for row, index in enumerate(indices):
            place = self._places.get(index)
            pixels[row] = loose[index].pixels if place is None else self._pixels[place]
        shapes = tuple(self._shapes[index] if index in self._places else loose[index].frame_shape for index in indices)
        return Images(indices=tuple(indices), pixels=pixels, frame_shapes=shapes)

    def _read(self, index: int) -> _Read | None:
        """Reads one image, and keeps it if there is room."""
        with self._lock:
            if index in self._bad:
                return None
        path = self.dataset.samples[index].path
        try:
            frame = read_frame(path, self._spec)
        except DataError as error:
            self._skip(index, error)
            return None
        pixels = resize_frame(frame, self._spec)
        with self._lock:
            if index not in self._places and len(self._places) < len(self._pixels):
                place = len(self._places)
                self._pixels[place] = pixels
                self._shapes[index] = frame.shape
                self._places[index] = place
        return _Read(index=index, pixels=pixels, frame_shape=frame.shape)

    def _skip(self, index: int, error: DataError) -> None:
        with self._lock:
            self._bad[index] = BadImage(path=self.dataset.samples[index].path, reason=error.message)
            bad, total = len(self._bad), len(self.dataset)
        if bad > self._allowed or bad == total:
            shown = "\n  ".join(image.reason for image in self.skipped[:_SHOWN])
            raise DataError(
                f"too many unreadable images: {bad} so far, of {total} ({self._allowed} may be skipped):\n  {shown}",
                hint=error.hint if error.hint is not None else "repair or remove these files",
            ) from error
