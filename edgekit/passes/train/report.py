"""What a training did, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EpochReport", "FitReport"]


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch.

    Attributes:
        epoch: From 1.
        losses: Mean of each loss over the epoch's steps, over all processes.
        learning_rate: Of the last step.
        held_out: The score after it; None where nothing is held out.
        duration_s: Seconds, measuring included.
    """

    epoch: int
    losses: Mapping[str, float]
    learning_rate: float
    held_out: float | None
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """A whole training.

    Attributes:
        criterion: What epochs were compared by: the task's metric, ``loss``, or ``none``.
        higher_is_better: Whether a higher criterion is better.
        chosen_epoch: Whose weights were returned; 0 are the given ones.
        before, after: The held-out scores of the given and of the returned weights.
        per_class_before, per_class_after: The same by class, where the task has classes and labels.
        epochs: Those that were trained, oldest first.
        stopped_early: Whether the held-out score had stopped getting better.
        images: Trained on.
        held_out_images: Compared on.
        steps_per_epoch: Updates of the weights.
        seed: Of the training.
        processes: How many trained together.
        resumed_epoch: The epoch after which a checkpoint was taken up; None where there was none.
    """

    criterion: str
    higher_is_better: bool
    chosen_epoch: int
    before: float | None
    after: float | None
    per_class_before: Mapping[str, float]
    per_class_after: Mapping[str, float]
    epochs: tuple[EpochReport, ...]
    stopped_early: bool
    images: int
    held_out_images: int
    steps_per_epoch: int
    seed: int
    processes: int
    resumed_epoch: int | None

    @property
    def summary(self) -> str:
        """One sentence."""
        trained = f"{len(self.epochs)} epochs on {self.images} images"
        if self.stopped_early:
            trained += ", stopped early"
        if self.before is None or self.after is None:
            return f"{trained}; weights of the last epoch, nothing was held out"
        which = "the given weights, none were better" if self.chosen_epoch == 0 else f"epoch {self.chosen_epoch}"
        return (
            f"{trained}; {self.criterion} on {self.held_out_images} held-out images {self.before:.4f} -> "
            f"{self.after:.4f} ({which})"
        )

    def to_details(self) -> dict[str, Any]:
        """Returns plain numbers for a program's history: without times, which differ from run to run."""
        table = asdict(self)
        del table["resumed_epoch"]
        for epoch in table["epochs"]:
            del epoch["duration_s"]
        return {**table, "epochs": list(table["epochs"])}
