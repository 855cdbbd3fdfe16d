"""The compiler's and the bench's half of a task: which data it reads and how good a model is at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgekit.data import Dataset, Sample

__all__ = ["ClassScore", "Metric", "MetricReport", "Task"]


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The metric on one class.

    Attributes:
        value: In 0..1; None when the data has no image of the class.
        samples: Images of the class.
    """

    value: float | None
    samples: int


@dataclass(frozen=True, kw_only=True)
class MetricReport:
    """How good a model was on a data set.

    Attributes:
        name: The metric, such as ``top1``.
        value: In 0..1, higher is better.
        samples: Images that were evaluated.
        per_class: Class name to its score, in the order of the labels.
        extra: Further numbers of the task, such as ``top5``.
        per_sample: (samples,) the score of each image in the order of evaluation, so that two reports on one data set
            can be compared pair by pair; 0 or 1 for classification.
        skipped: Images that could not be read, each as ``path: reason``.
    """

    name: str
    value: float
    samples: int
    per_class: Mapping[str, ClassScore]
    extra: Mapping[str, float] = field(default_factory=dict)
    per_sample: tuple[float, ...] = field(default=(), repr=False)
    skipped: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; without the single samples.

        ``{"metric": "top1", "value": 0.83, "samples": 2000, "per_class": {"cat": {"value": 0.7, "samples": 200}, ...},
        "top5": 0.99, "skipped": []}``
        """
        return {
            "metric": self.name,
            "value": self.value,
            "samples": self.samples,
            **self.extra,
            "per_class": {
                name: {"value": score.value, "samples": score.samples} for name, score in self.per_class.items()
            },
            "skipped": list(self.skipped),
        }


ResultT = TypeVar("ResultT", contravariant=True)
SpecT = TypeVar("SpecT", contravariant=True)


class Metric(Protocol[ResultT]):
    """Accumulates results over a data set."""

    def update(self, result: ResultT, sample: Sample) -> None:
        """Takes the result for one labelled image.

        Raises:
            DataError: The image has no label.
        """

    def value(self) -> MetricReport:
        """Returns the score of everything seen so far.

        Raises:
            DataError: Nothing was seen.
        """


class Task(Protocol[SpecT]):
    """One task; an entry of the table in ``edgekit.tasks``. Its half for the device is in ``edgekit.runtime.tasks``."""

    @property
    def name(self) -> str:
        """The task's name in specs."""

    def read_data(self, root: Path, spec: SpecT) -> Dataset:
        """Lists the images and labels of a folder in the task's layout.

        Raises:
            DataError: The folder is missing, empty, or laid out in another way.
        """

    def metric(self, spec: SpecT) -> Metric[Any]:
        """Returns a fresh metric."""
