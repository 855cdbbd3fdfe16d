"""What the stages did, for the report."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.compiler.records import Accuracy

__all__ = ["StageReport"]


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage, or a pruning with the training that recovers from it.

    Attributes:
        title: What it does.
        kept: Whether its result went on; otherwise the network is as it was before.
        why: Why, in a sentence with numbers.
        accuracy: Of its result, in float, with the drop from the given network; None where there are no labelled
            images.
        macs: Multiply-accumulates of its result, for one image.
        parameters: Of its result.
    """

    title: str
    kept: bool
    why: str
    accuracy: Accuracy | None
    macs: float
    parameters: int
