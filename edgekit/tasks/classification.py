"""Classification: one folder per class, top-1 and top-5 accuracy, accuracy per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.data import Dataset, Sample, read_folder
from edgekit.errors import DataError, InternalError
from edgekit.runtime.tasks.classification import ClassificationResult, ClassificationSpec
from edgekit.tasks.base import ClassScore, MetricReport

__all__ = ["ClassificationMetric", "ClassificationTask"]

_TOP = 5


class ClassificationMetric:
    """Top-1 accuracy, with top-5 and the accuracy of each class.

    An image counts for top-5 when fewer than five classes are ranked before the true one; equal scores rank by index,
    as in ``argmax``. An image with a score that is not a number counts as wrong.
    """

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._correct: list[bool] = []
        self._in_top = 0
        self._class_correct = np.zeros(len(labels), dtype=np.int64)
        self._class_samples = np.zeros(len(labels), dtype=np.int64)

    def update(self, result: ClassificationResult, sample: Sample) -> None:
        """Takes the result for one labelled image.

        Raises:
            DataError: The image has no label.
            InternalError: The result has another number of classes than the metric.
        """
        if sample.label is None:
            raise DataError(
                f"{sample.path}: has no label",
                hint="evaluation needs one folder per class, named like the task's labels",
            )
        scores = np.asarray(result.scores, dtype=np.float64)
        if scores.shape != (len(self._labels),):
            raise InternalError(f"expected {len(self._labels)} scores, got shape {scores.shape}")
        sound = not bool(np.isnan(scores).any())
        own = scores[sample.label]
        before = np.count_nonzero(scores > own) + np.count_nonzero(scores[: sample.label] == own)
        correct = sound and result.index == sample.label
        self._correct.append(correct)
        self._in_top += int(sound and before < _TOP)
        self._class_correct[sample.label] += correct
        self._class_samples[sample.label] += 1

    def value(self) -> MetricReport:
        """Returns the accuracies of everything seen so far.

        Raises:
            DataError: No image was seen.
        """
        samples = len(self._correct)
        if samples == 0:
            raise DataError("no labelled image was evaluated", hint="give a folder with one folder of images per class")
        per_class = {
            label: ClassScore(value=float(correct / count) if count else None, samples=int(count))
            for label, correct, count in zip(self._labels, self._class_correct, self._class_samples, strict=True)
        }
        return MetricReport(
            name="top1",
            value=sum(self._correct) / samples,
            samples=samples,
            per_class=per_class,
            extra={"top5": self._in_top / samples},
            per_sample=tuple(float(correct) for correct in self._correct),
        )


class ClassificationTask:
    """The entry of classification in the task table."""

    @property
    def name(self) -> str:
        """The task's name in specs."""
        return "classification"

    def read_data(self, root: Path, spec: ClassificationSpec) -> Dataset:
        """Lists a folder per class, or a flat folder without labels; see :func:`edgekit.data.read_folder`."""
        return read_folder(root, spec.labels)

    def metric(self, spec: ClassificationSpec) -> ClassificationMetric:
        """Returns a fresh metric for the spec's labels."""
        return ClassificationMetric(spec.labels)
