"""What every correction shares: the images it is fitted and judged on, and the verdict on each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.passes.aten import layer_name
from edgekit.passes.samples import Batch, CalibrationData
from edgekit.program import Program, Record, Skipped

__all__ = ["Images", "Verdict", "gains", "gather", "left_alone", "not_done", "too_few"]

# Where there is but one number to judge by, it must fall by this factor: what gains less may be noise of the images.
_WORTH_KEEPING = 0.98


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a correction did to one layer, on images that it was not fitted on.

    Attributes:
        before, after: The squared error that the correction is about, without and with it.
        kept: Whether it gained enough to stay.
    """

    before: float
    after: float
    kept: bool

    @staticmethod
    def of_totals(before: float, after: float) -> Verdict:
        """Judges by one number over all images: it must fall by 2 %."""
        return Verdict(before=before, after=after, kept=after < _WORTH_KEEPING * before)

    @staticmethod
    def of_images(before: torch.Tensor, after: torch.Tensor) -> Verdict:
        """Judges by each image's error: on average it must fall by more than that average's standard error.

        Args:
            before, after: float64 (images,), in the same order.
        """
        fall = before - after
        if len(fall) < 2:
            return Verdict.of_totals(float(before.sum()), float(after.sum()))
        kept = bool(fall.mean() > fall.std() / math.sqrt(len(fall)))
        return Verdict(before=float(before.sum()), after=float(after.sum()), kept=kept)

    @property
    def gain_db(self) -> float | None:
        """How far the error falls, in dB; negative where it rises, None where one of the two is zero or no number."""
        if not (0 < self.before < math.inf and 0 < self.after < math.inf):
            return None
        return 10 * math.log10(self.before / self.after)

    def why_not(self) -> str:
        """Why it was not kept."""
        gain = self.gain_db
        said = "changed nothing that can be told in dB" if gain is None else f"gained {gain:.2f} dB"
        return f"on images that it was not fitted on it {said}: undone"


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images held in memory, in batches.

    Attributes:
        fit: What a correction is fitted on.
        held_out: What it is judged on.
    """

    fit: tuple[Batch, ...]
    held_out: tuple[Batch, ...]

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All batches: those to fit on, then the held-out ones."""
        return (*self.fit, *self.held_out)

    @property
    def fit_batches(self) -> range:
        """Places of the batches to fit on in :attr:`batches`."""
        return range(len(self.fit))

    @property
    def held_out_batches(self) -> range:
        """Places of the held-out batches in :attr:`batches`."""
        return range(len(self.fit), len(self.fit) + len(self.held_out))


def too_few(data: CalibrationData) -> bool:
    """Whether no image can be kept for judging."""
    return next(data.held_out(1), None) is None


def not_done(stage: str, what: str, program: Program, data: CalibrationData) -> Record:
    """The record of a pass that had :func:`too_few` images."""
    why = f"{data.count} calibration images are too few: every fourth one is kept for judging"
    return Record(stage=stage, summary=f"{what}: not done", skipped=(Skipped(what=what, where=program.name, why=why),))


def gather(data: CalibrationData, options: Corrections) -> Images:
    """Reads the images of a correction into memory."""
    return Images(fit=tuple(data.fit(options.samples)), held_out=tuple(data.held_out(options.held_out)))


def left_alone(what: str, verdicts: Mapping[fx.Node, Verdict | str]) -> tuple[Skipped, ...]:
    """Returns the layers that a correction could not be made for (a reason) or was not kept for."""
    return tuple(
        Skipped(what=what, where=layer_name(node), why=item if isinstance(item, str) else item.why_not())
        for node, item in verdicts.items()
        if isinstance(item, str) or not item.kept
    )


def gains(verdicts: Mapping[fx.Node, Verdict | str]) -> list[dict[str, Any]]:
    """Returns one plain line for each layer that was judged; the keys are those of ``docs/json.md``."""
    return [
        {
            "layer": layer_name(node),
            "node": node.name,
            "gain_db": None if item.gain_db is None else round(item.gain_db, 2),
            "kept": item.kept,
        }
        for node, item in verdicts.items()
        if isinstance(item, Verdict)
    ]
