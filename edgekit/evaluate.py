"""How good a model is on a data set, by its task's metric: one loop for engines and for programs alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.data import Dataset, Sample, iterate
from edgekit.errors import DataError, StageError
from edgekit.progress import Progress, ProgressTask, SilentProgress
from edgekit.runtime.pipeline import pipelined
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.session import Session
from edgekit.runtime.tasks import get_runtime_task
from edgekit.runtime.tasks.base import Spec
from edgekit.tasks import MetricReport, get_task

__all__ = ["Answer", "Infer", "ReadImage", "evaluate", "evaluate_session", "score"]

Infer = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]
"""Feeds to outputs, both with a batch dimension of 1: ``session.infer``, or a program behind the same signature."""


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """One image, read and resized.

    Attributes:
        sample: Where it is from, and its label.
        pixels: (H, W, C) at the model's size, in the spec's pixel type.
        frame_shape: Shape of the frame before the resize.
    """

    sample: Sample
    pixels: npt.NDArray[Any]
    frame_shape: tuple[int, ...]


_Feeds = Iterable[tuple[ReadImage, Mapping[str, npt.NDArray[Any]]]]

Answer = tuple[ReadImage, Mapping[str, npt.NDArray[Any]]]
"""An image with the model's outputs for it, which have a batch dimension of 1."""

_Run = Callable[[_Feeds], Iterable[Answer]]


def evaluate(infer: Infer, spec: Spec, dataset: Dataset, *, progress: Progress | None = None) -> MetricReport:
    """Runs every image of a labelled data set through a model, one at a time, and scores the results.

    Reading, resizing and decoding are those of the runtime, so the score is that of what ships.

    Args:
        infer: Takes ``{"image": (1, H, W, C)}`` in the spec's pixel type, at the model's size.
        spec: The task spec.
        dataset: Labelled images, of the spec's classes.
        progress: Where progress is shown; None shows none.

    Returns:
        The report, with the images that could not be read in ``skipped``.

    Raises:
        DataError: The data set is empty or has no labels, or too many images cannot be read.
        StageError: The model returned something without a batch dimension of 1.
    """
    return _evaluate(lambda feeds: ((image, infer(arrays)) for image, arrays in feeds), spec, dataset, progress)


def evaluate_session(
    session: Session, spec: Spec, dataset: Dataset, *, progress: Progress | None = None
) -> MetricReport:
    """Does the same with an engine, which runs while the images around it are read and scored."""
    return _evaluate(partial(pipelined, session), spec, dataset, progress)


def _evaluate(run: _Run, spec: Spec, dataset: Dataset, progress: Progress | None) -> MetricReport:
    if not dataset.labelled:
        raise DataError(
            "the data set has no labels, so nothing can be scored",
            hint="give a folder with one folder of images per class, named like the task's labels",
        )
    frames = iterate(dataset, spec.input)
    shown = SilentProgress() if progress is None else progress

    def feeds() -> Iterator[tuple[ReadImage, dict[str, npt.NDArray[Any]]]]:
        for sample, frame in frames:
            pixels = resize_frame(frame, spec.input)
            image = ReadImage(sample=sample, pixels=pixels, frame_shape=frame.shape)
            yield image, {"image": pixels[np.newaxis]}

    def answers(bar: ProgressTask) -> Iterator[Answer]:
        for answer in run(feeds()):
            yield answer
            bar.advance()

    with shown.task("evaluating", len(dataset)) as bar:
        report = score(spec, answers(bar))
    return replace(report, skipped=tuple(image.reason for image in frames.skipped))


def score(spec: Spec, answers: Iterable[Answer]) -> MetricReport:
    """Scores a model's outputs by the task's metric.

    Args:
        spec: The task spec.
        answers: Labelled images with the outputs for them, taken one by one.

    Raises:
        DataError: There is no image, or one without a label.
        StageError: An output without a batch dimension of 1.
    """
    metric = get_task(spec.task).metric(spec)
    runtime_task = get_runtime_task(spec.task)
    for image, outputs in answers:
        single = {name: _unbatched(name, output) for name, output in outputs.items()}
        metric.update(runtime_task.decode(single, spec, image.frame_shape), image.sample)
    return metric.value()


def _unbatched(name: str, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if output.ndim < 1 or output.shape[0] != 1:
        raise StageError(f"output '{name}': expected a batch dimension of 1, got shape {output.shape}")
    single: npt.NDArray[Any] = output[0]
    return single
