"""Classification: cross entropy with its usual variations, and the divergence of class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from edgekit.config import nearest, to_dict
from edgekit.data import Sample
from edgekit.errors import ConfigError, DataError, UserError
from edgekit.objectives.base import Outputs
from edgekit.runtime.tasks.classification import ClassificationSpec

__all__ = ["ClassificationObjective"]

# Scores that the network turned into probabilities itself may be zero.
_SMALLEST = 1e-7


@dataclass(frozen=True, kw_only=True)
class ClassificationObjective:
    """The loss of a classifier.

    With scores ``z`` (N, C), targets ``t`` (N, C) that sum to one, weights ``w`` (C,), and ``p = softmax(z)``, the loss
    of an image is ``-sum_c w_c t_c (1 - p_c)^gamma log p_c``. For a spec with ``activation = "sigmoid"`` each class is
    a decision of its own, ``p = sigmoid(z)``, and ``-w_c (1 - t_c) p_c^gamma log(1 - p_c)`` is added for each.

    Attributes:
        spec: The task spec.
        label_smoothing: This share of each target is spread evenly over all classes, ``t' = (1 - s) t + s / C``
            (Szegedy et al. 2016, arXiv:1512.00567, section 7).
        focal_gamma: Images that the network is sure of count less (Lin et al. 2017, arXiv:1708.02002, equation 4); 0 is
            plain cross entropy.
        class_weights: (C,), ``w``; None weighs all alike. :func:`edgekit.data.class_weights` makes them of a data set.
    """

    spec: ClassificationSpec
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected a number from 0 to below 1, got {self.label_smoothing}")
        if self.focal_gamma < 0:
            raise ConfigError(f"focal_gamma: expected 0 or more, got {self.focal_gamma}")
        count = len(self.spec.labels)
        if self.class_weights is not None and (len(self.class_weights) != count or min(self.class_weights) < 0):
            raise ConfigError(f"class_weights: expected {count} numbers of 0 or more, got {list(self.class_weights)}")

    def encode(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Returns (N, C) float32, one 1 in each row.

        Raises:
            DataError: An image has no label.
        """
        labels = []
        for sample in samples:
            if sample.label is None:
                raise DataError(
                    f"{sample.path}: has no label, and the loss needs one",
                    hint="give one folder of images per class; without labels only distillation works (alpha = 1)",
                )
            labels.append(sample.label)
        return F.one_hot(torch.tensor(labels, dtype=torch.int64), len(self.spec.labels)).float()

    def mixed(self, targets: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Returns (N, C) soft targets (Zhang et al. 2018, arXiv:1710.09412, section 2)."""
        part = share.reshape(-1, 1)
        return part * targets + (1 - part) * others

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss of the batch.

        Args:
            outputs: The one of the scores has C elements an image.
            targets: (N, C) float32, rows of sum one.
        """
        scores = self._scores(outputs)
        smoothed = (1 - self.label_smoothing) * targets + self.label_smoothing / targets.shape[1]
        log_yes, log_no = self._log_probabilities(scores, 1.0)
        terms = smoothed * self._focused(log_yes)
        if log_no is not None:
            terms = terms + (1 - smoothed) * self._focused(log_no)
        if self.class_weights is not None:
            terms = terms * torch.tensor(self.class_weights, dtype=terms.dtype, device=terms.device)
        return -terms.sum(1).mean()

    def divergence(self, outputs: Outputs, teacher: Outputs, temperature: float) -> torch.Tensor:
        """Returns ``T^2 KL(p_teacher || p)``, both at temperature ``T``, mean over the batch.

        ``T^2`` keeps the gradient's size when the temperature changes. Source: Hinton, Vinyals and Dean 2015,
        arXiv:1503.02531, section 2.
        """
        log_yes, log_no = self._log_probabilities(self._scores(outputs), temperature)
        wanted_yes, wanted_no = self._log_probabilities(self._scores(teacher), temperature)
        terms = wanted_yes.exp() * (wanted_yes - log_yes)
        if log_no is not None and wanted_no is not None:
            terms = terms + wanted_no.exp() * (wanted_no - log_no)
        return temperature**2 * terms.sum(1).mean()

    def to_dict(self) -> dict[str, Any]:
        """Returns the options and the spec as plain data."""
        table: dict[str, Any] = to_dict(self)
        return table

    def _scores(self, outputs: Outputs) -> torch.Tensor:
        name = next(iter(outputs)) if self.spec.output is None else self.spec.output
        if name not in outputs:
            raise UserError(f"output '{name}': the model has none of that name", hint=nearest(name, outputs))
        scores = outputs[name].flatten(1).float()
        if scores.shape[1] != len(self.spec.labels):
            raise UserError(
                f"output '{name}': expected {len(self.spec.labels)} values, one per label, got {scores.shape[1]}",
                hint="give as many labels as the model has classes, or name another output in the task spec",
            )
        return scores

    def _log_probabilities(self, scores: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns log p, and log(1 - p) where each class is a decision of its own."""
        if self.spec.activation == "sigmoid":
            scaled = scores / temperature
            return F.logsigmoid(scaled), F.logsigmoid(-scaled)
        if self.spec.activation == "none":
            # Probabilities already: their logarithms are scores, up to a constant that softmax does not see.
            scores = scores.clamp_min(_SMALLEST).log()
        return F.log_softmax(scores / temperature, dim=1), None

    def _focused(self, log_probability: torch.Tensor) -> torch.Tensor:
        if self.focal_gamma == 0:
            return log_probability
        # The base is kept off zero, where a power below one has no finite slope.
        return (1 - log_probability.exp()).clamp_min(_SMALLEST) ** self.focal_gamma * log_probability
