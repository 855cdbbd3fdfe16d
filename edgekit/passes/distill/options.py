"""What a student takes from its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import ConfigError

__all__ = ["DistillOptions"]


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """How the teacher's answers, the labels and the teacher's features are weighed.

    The loss is ``alpha * divergence + (1 - alpha) * task loss + hint_weight * hint loss``.

    Attributes:
        temperature: At which both answers are compared; see
            :meth:`edgekit.objectives.ClassificationObjective.divergence`.
        alpha: Share of the divergence; at 1 no labels are needed, at 0 the teacher is not asked.
        hints: Layers whose features the student imitates too (Romero et al. 2015, arXiv:1412.6550): names of nodes that
            both graphs have, or ``student=teacher`` where they differ; or a number: the ends of so many last stages, in
            which the size of the features stays the same, of both networks. Empty or 0 is off.
        hint_weight: Of the hint loss, which is the mean over the hints of the squared difference over the square of
            the teacher's features.
    """

    temperature: float = 4.0
    alpha: float = 0.9
    hints: tuple[str, ...] | int = ()
    hint_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature: expected a number above 0, got {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha: expected a number from 0 to 1, got {self.alpha}")
        if isinstance(self.hints, int) and self.hints < 0:
            raise ConfigError(f"hints: expected names or a number of 0 or more, got {self.hints}")
        if not self.hint_weight > 0:
            raise ConfigError(f"hint_weight: expected a number above 0, got {self.hint_weight}")
