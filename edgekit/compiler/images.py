"""Images on their way into programs and engines: read once, in batches where a program takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edgekit.data import BadImage, Dataset, iterate
from edgekit.evaluate import Answer, ReadImage
from edgekit.program import Program
from edgekit.progress import ProgressTask
from edgekit.runtime.pipeline import pipelined
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.session import Session
from edgekit.runtime.tasks.base import Spec

__all__ = ["ImageSets", "Images", "engine_answers", "program_answers"]

Array = np.ndarray[Any, Any]
# Two hundred images of 224 x 224: more than any pass but the one that takes ranges looks at.
_KEEP_BYTES = 32 << 20
_PROGRAM_BATCH = 32
# Every candidate is evaluated on all of these images, so more of them are kept than of those that calibrate.
_KEEP_EVALUATION_BYTES = 256 << 20


class Images:
    """The images of a data set at the model's size, for several readers.

    The first ones, as many as fit into ``keep_bytes``, stay in memory; the rest is read again each time, so that memory
    is bounded whatever the number of images.

    Args:
        dataset: The images.
        spec: Says how they are read and resized.
        keep_bytes: Bound of the memory.
    """

    def __init__(self, dataset: Dataset, spec: Spec, *, keep_bytes: int = _KEEP_BYTES) -> None:
        self.dataset = dataset
        self.spec = spec
        self._keep_bytes = keep_bytes
        self._kept: list[ReadImage] = []
        # One piece of memory for the pixels: many small ones, made between the large tensors of a network that runs,
        # would hold on to the heap around them.
        self._pixels: Array | None = None
        self._full = False
        # The first sample that is neither kept nor known to be unreadable, and the unreadable ones before it.
        self._next = 0
        self._skipped_before: tuple[BadImage, ...] = ()
        self._skipped: dict[BadImage, None] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def skipped(self) -> tuple[BadImage, ...]:
        """The images that could not be read so far."""
        return tuple(self._skipped)

    def name_of(self, index: int) -> str:
        """What image number ``index``, of those that could be read, is called in messages."""
        unreadable = {item.path for item in self._skipped}
        readable = [sample for sample in self.dataset.samples if sample.path not in unreadable]
        return str(readable[index].path) if index < len(readable) else f"image {index + 1}"

    def __iter__(self) -> Iterator[ReadImage]:
        """Yields the readable images in the order of the data set.

        Raises:
            DataError: Too many images cannot be read.
        """
        index = 0
        while index < len(self._kept):
            yield self._kept[index]
            index += 1
        position = self._next
        if position == len(self.dataset):
            return
        frames = iterate(self.dataset, self.spec.input, start=position, skipped=self._skipped_before)
        try:
            for sample, frame in frames:
                image = ReadImage(sample=sample, pixels=resize_frame(frame, self.spec.input), frame_shape=frame.shape)
                # Another reader may have come further meanwhile.
                if self._next == position:
                    kept = self._keep(image)
                    if kept is not None:
                        image, self._next, self._skipped_before = kept, frames.position, frames.skipped
                position = frames.position
                yield image
        finally:
            self._skipped.update(dict.fromkeys(frames.skipped))
        if self._next == position and not self._full:
            self._next, self._skipped_before = len(self.dataset), frames.skipped

    def _keep(self, image: ReadImage) -> ReadImage | None:
        """Keeps an image, if there is room: its pixels are moved. All are of one shape, the model's."""
        if self._pixels is None:
            room = min(len(self.dataset), self._keep_bytes // max(1, image.pixels.nbytes))
            self._pixels = np.empty((room, *image.pixels.shape), dtype=image.pixels.dtype)
        place = len(self._kept)
        self._full = self._full or place == len(self._pixels)
        if self._full:
            return None
        self._pixels[place] = image.pixels
        self._kept.append(replace(image, pixels=self._pixels[place]))
        return self._kept[-1]

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields the images as batches of at most ``size``: one tensor (N, H, W, C) each, in the spec's pixel type."""
        for group in _groups(self, size):
            yield (_stacked(group),)


@dataclass(frozen=True, kw_only=True)
class ImageSets:
    """The images of one compilation, read once for all that look at them.

    Attributes:
        calibration: For ranges, corrections and importance; None without a task or data.
        evaluation: Labelled images for the accuracy gate, or None.
    """

    calibration: Images | None
    evaluation: Images | None

    @classmethod
    def of(cls, calibration: Dataset | None, evaluation: Dataset | None, spec: Spec | None) -> ImageSets:
        """Opens data sets for a task; nothing is read yet."""
        if spec is None:
            return cls(calibration=None, evaluation=None)
        return cls(
            calibration=None if calibration is None else Images(calibration, spec),
            evaluation=None if evaluation is None else Images(evaluation, spec, keep_bytes=_KEEP_EVALUATION_BYTES),
        )


def engine_answers(session: Session, images: Images, bar: ProgressTask) -> Iterator[Answer]:
    """Runs an engine on every image, one at a time, while those around it are read and scored."""
    feeds = ((image, {"image": image.pixels[np.newaxis]}) for image in images)
    for answer in pipelined(session, feeds):
        yield answer
        bar.advance()


def program_answers(program: Program, images: Iterable[ReadImage], bar: ProgressTask | None) -> Iterator[Answer]:
    """Runs a folded program on every image, in batches where it takes them."""
    for group in _groups(images, _PROGRAM_BATCH if program.dynamic_batch else 1):
        results = program.run(_stacked(group))
        for index, image in enumerate(group):
            outputs = zip(program.outputs, results, strict=True)
            yield image, {item.name: result[index : index + 1].numpy() for item, result in outputs}
            if bar is not None:
                bar.advance()


def _groups(images: Iterable[ReadImage], size: int) -> Iterator[list[ReadImage]]:
    group: list[ReadImage] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _stacked(group: list[ReadImage]) -> torch.Tensor:
    return torch.from_numpy(np.stack([image.pixels for image in group]))
