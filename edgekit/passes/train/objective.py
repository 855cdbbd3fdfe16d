"""What the loop minimises: a module that sees a batch's images, outputs and targets, and gives named losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import InternalError
from edgekit.objectives import Outputs, TaskObjective

__all__ = ["LOSS", "Objective", "Seen", "Supervised"]

LOSS = "loss"
"""The name of the loss that is minimised; others are shown beside it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One batch, as an objective sees it.

    Attributes:
        images: (N, C, H, W) float32, as the program takes them.
        outputs: The student's.
        features: The student's nodes that the objective asked for, by name; empty while held-out images are scored.
        targets: From :meth:`~edgekit.objectives.TaskObjective.encode`; None for images without labels.
    """

    images: torch.Tensor
    outputs: Outputs
    features: Mapping[str, torch.Tensor]
    targets: torch.Tensor | None


class Objective(nn.Module):
    """The base of objectives. Parameters of its own that require a gradient are trained with the student's."""

    features: tuple[str, ...] = ()
    """Names of the student's nodes whose values it wants to see."""

    needs_labels: bool = True
    """Whether targets must be there."""

    def forward(self, seen: Seen) -> dict[str, torch.Tensor]:
        """Returns scalars by name, among them :data:`LOSS`."""
        raise InternalError(f"{type(self).__name__} says no loss")

    def to_dict(self) -> dict[str, Any]:
        """Returns everything that its values depend on, as plain JSON-able data, for the check of checkpoints."""
        raise InternalError(f"{type(self).__name__} does not describe itself")


class Supervised(Objective):
    """The task's own loss.

    Args:
        task: The task's objective.
    """

    def __init__(self, task: TaskObjective) -> None:
        super().__init__()
        self.task = task

    def forward(self, seen: Seen) -> dict[str, torch.Tensor]:
        """Returns the task's loss.

        Raises:
            InternalError: There are no targets.
        """
        if seen.targets is None:
            raise InternalError("the task's loss was asked for without targets")
        return {LOSS: self.task.loss(seen.outputs, seen.targets)}

    def to_dict(self) -> dict[str, Any]:
        """Returns the task's description."""
        return {"objective": "task", "task": self.task.to_dict()}
