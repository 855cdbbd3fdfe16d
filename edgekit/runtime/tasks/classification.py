"""Classification on the device: one label for the whole frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.config import nearest
from edgekit.errors import ConfigError, StageError, UserError
from edgekit.runtime.drawing import caption, drawable
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["Classification", "ClassificationResult", "ClassificationSpec"]

Frame = npt.NDArray[Any]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ClassificationSpec:
    """What a classifier was trained for.

    Attributes:
        task: ``classification``.
        input: What the model expects of an image.
        labels: Class names, in the order of the model's outputs.
        output: Name of the output that holds the scores; None takes the first.
        activation: What turns the output into scores: ``softmax`` (one label), ``sigmoid`` (each on its own) or
            ``none`` (the model does it itself).
        top: How many labels a result shows.
    """

    task: Literal["classification"] = "classification"
    input: ImageInput
    labels: tuple[str, ...]
    output: str | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    top: int = 5

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("labels: expected at least one")
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for label in self.labels if self.labels.count(label) > 1)
            raise ConfigError(f"labels: '{twice}' stands there more than once")
        if self.top < 1:
            raise ConfigError(f"top: expected at least 1, got {self.top}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationResult:
    """Scores of one frame.

    Attributes:
        label: The best label.
        score: Its score.
        index: Its place in ``labels``.
        scores: (C,) float32, read-only, in the order of ``labels``.
        labels: All class names.
        shown: How many labels ``to_dict`` and ``draw`` show.
    """

    label: str
    score: float
    index: int
    scores: Scores = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    shown: int = field(default=5, repr=False)

    def top(self, count: int | None = None) -> tuple[tuple[str, float], ...]:
        """Returns the best labels with their scores, best first; equal scores keep the order of ``labels``.

        Args:
            count: How many; None takes the spec's ``top``. More than there are gives all.
        """
        wanted = self.shown if count is None else count
        order = np.argsort(-self.scores, kind="stable")[:wanted]
        return tuple((self.labels[index], float(self.scores[index])) for index in order)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain JSON-able data."""
        best = [{"label": label, "score": score} for label, score in self.top()]
        return {
            "task": "classification",
            "label": self.label,
            "score": self.score,
            "index": self.index,
            "top": best,
        }

    def draw(self, frame: Frame) -> Frame:
        """Returns a copy of the frame with the best labels written on it or, on a small one, above it.

        A frame too small for text is enlarged.

        Args:
            frame: uint8 (H, W, 3) BGR, or (H, W) gray.

        Returns:
            uint8 (H * k, W * k, 3) BGR, or a few rows more.
        """
        return caption(drawable(frame), [f"{score:.3f} {label}" for label, score in self.top()])


class Classification:
    """The classification task of the table in :mod:`edgekit.runtime.tasks`."""

    name = "classification"
    spec_type = ClassificationSpec

    def decode(
        self, outputs: Mapping[str, Frame], spec: ClassificationSpec, frame_shape: tuple[int, ...]
    ) -> ClassificationResult:
        """Turns one frame's output into scores.

        Args:
            outputs: Output name to array without its batch dimension; the one of the scores has C elements.
            spec: The task spec with its C labels.
            frame_shape: Not needed: a label has no place.

        Raises:
            UserError: No output of the spec's name, or its size is not the number of labels.
            StageError: The engine answered NaN or infinity.
        """
        name = next(iter(outputs)) if spec.output is None else spec.output
        if name not in outputs:
            raise UserError(f"output '{name}': the model has none of that name", hint=nearest(name, outputs))
        values = outputs[name]
        if values.size != len(spec.labels):
            raise UserError(
                f"output '{name}': expected {len(spec.labels)} values, one per label, got {values.size} "
                f"of shape {values.shape}",
                hint="give as many labels as the model has classes, or name another output in the task spec",
            )
        scores = _activated(values.reshape(-1).astype(np.float32), spec.activation)
        if not np.isfinite(scores).all():
            raise StageError(f"output '{name}': the engine answered NaN or infinity")
        scores.setflags(write=False)
        index = int(np.argmax(scores))
        return ClassificationResult(
            label=spec.labels[index],
            score=float(scores[index]),
            index=index,
            scores=scores,
            labels=spec.labels,
            shown=spec.top,
        )


def _activated(values: Scores, activation: Literal["softmax", "sigmoid", "none"]) -> Scores:
    if activation == "none" or not np.isfinite(values).all():
        return values
    if activation == "softmax":
        powers: Scores = np.exp(values - values.max())
        powers /= powers.sum()
        return powers
    # Both branches of the logistic function only ever see a negative exponent.
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0 / (1.0 + small), small / (1.0 + small)).astype(np.float32)
