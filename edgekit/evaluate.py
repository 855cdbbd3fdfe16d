"""How good a model is on a data set, by its task's metric: one loop for engines and for programs alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.data import Dataset, iterate
from edgekit.errors import DataError, StageError
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.tasks import get_runtime_task
from edgekit.runtime.tasks.base import Spec
from edgekit.tasks import MetricReport, get_task

__all__ = ["Infer", "evaluate"]

Infer = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]
"""Feeds to outputs, both with a batch dimension of 1: ``session.infer``, or a program behind the same signature."""


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
    if not dataset.labelled:
        raise DataError(
            "the data set has no labels, so nothing can be scored",
            hint="give a folder with one folder of images per class, named like the task's labels",
        )
    metric = get_task(spec.task).metric(spec)
    runtime_task = get_runtime_task(spec.task)
    frames = iterate(dataset, spec.input)
    shown = SilentProgress() if progress is None else progress
    with shown.task("evaluating", len(dataset)) as task:
        for sample, frame in frames:
            outputs = infer({"image": resize_frame(frame, spec.input)[np.newaxis]})
            single = {name: _unbatched(name, output) for name, output in outputs.items()}
            metric.update(runtime_task.decode(single, spec, frame.shape), sample)
            task.advance()
    return replace(metric.value(), skipped=tuple(image.reason for image in frames.skipped))


def _unbatched(name: str, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if output.ndim < 1 or output.shape[0] != 1:
        raise StageError(f"output '{name}': expected a batch dimension of 1, got shape {output.shape}")
    single: npt.NDArray[Any] = output[0]
    return single
