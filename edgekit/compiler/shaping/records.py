"""What the stages did, for the report."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.bench.statistics import Interval
from edgekit.compiler.records import Accuracy

__all__ = ["StageLatency", "StageReport"]


@dataclass(frozen=True, kw_only=True)
class StageLatency:
    """Engine times of the given network and of a stage's result, measured side by side on the target.

    Attributes:
        target: Where.
        precision: Of both engines.
        batch: Images of one call.
        before_ms, after_ms: Medians.
        ratio: After over before, with its interval.
    """

    target: str
    precision: str
    batch: int
    before_ms: float
    after_ms: float
    ratio: Interval


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
        latency: Of its result against the given network; None where nothing was pruned or no target can be timed here.
    """

    title: str
    kept: bool
    why: str
    accuracy: Accuracy | None
    macs: float
    parameters: int
    latency: StageLatency | None = None
