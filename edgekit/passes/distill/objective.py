"""The student's loss: the teacher's answers, the labels, and hints, each with its weight."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edgekit.config import to_dict
from edgekit.errors import InternalError
from edgekit.objectives import TaskObjective
from edgekit.passes.distill.hints import Hint, hint_loss, projection
from edgekit.passes.distill.options import DistillOptions
from edgekit.passes.train.checkpoint import digest_of
from edgekit.passes.train.mode import add_features
from edgekit.passes.train.objective import LOSS, Objective, Seen
from edgekit.program import Program

__all__ = ["Distillation"]


class Distillation(Objective):
    """Compares a student with a teacher in inference mode.

    Args:
        teacher: Left as it is; a copy of it answers.
        task: The task's objective.
        options: The weights.
        hints: From :func:`~edgekit.passes.distill.hints.matched_hints`.
    """

    def __init__(
        self, teacher: Program, task: TaskObjective, options: DistillOptions, hints: Sequence[Hint] = ()
    ) -> None:
        super().__init__()
        self.needs_labels = options.alpha < 1
        self.features = tuple(hint.student for hint in hints)
        self._task, self._options, self._hints = task, options, tuple(hints)
        self._digest = digest_of(teacher)
        self._teacher = copy.deepcopy(teacher.graph).requires_grad_(False)
        add_features(self._teacher, [hint.teacher for hint in hints])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the maps begin the same in every process, and in a training that is resumed
            self._projections = nn.ModuleList(projection(hint) for hint in hints)

    def forward(self, seen: Seen) -> dict[str, torch.Tensor]:
        """Returns ``loss``, and of what it is made of those that have a weight: ``divergence``, ``task``, ``hints``."""
        options, losses, weighted = self._options, dict[str, torch.Tensor](), list[torch.Tensor]()
        if self.needs_labels:
            if seen.targets is None:
                raise InternalError("the task's loss was asked for without targets")
            losses["task"] = self._task.loss(seen.outputs, seen.targets)
            weighted.append((1 - options.alpha) * losses["task"])
        answers, features = self._answers(seen) if options.alpha > 0 or self._hints else ({}, ())
        if options.alpha > 0:
            losses["divergence"] = self._task.divergence(seen.outputs, answers, options.temperature)
            weighted.append(options.alpha * losses["divergence"])
        if self._hints:
            parts = [
                hint_loss(project(seen.features[hint.student]), feature)
                for hint, project, feature in zip(self._hints, self._projections, features, strict=True)
            ]
            losses["hints"] = torch.stack(parts).mean()
            weighted.append(options.hint_weight * losses["hints"])
        return {LOSS: torch.stack(weighted).sum(), **losses}

    def _answers(self, seen: Seen) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, ...]]:
        """What the teacher answers, by the student's names, and its features."""
        with torch.no_grad():
            result = self._teacher(seen.images)
        values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        count = len(seen.outputs)
        return dict(zip(seen.outputs, values[:count], strict=True)), values[count:]

    def to_dict(self) -> dict[str, Any]:
        """Returns options, task, hints and a digest of the teacher."""
        return {
            "objective": "distillation",
            "options": to_dict(self._options),
            "task": self._task.to_dict(),
            "hints": to_dict(self._hints),
            "teacher": self._digest,
        }
