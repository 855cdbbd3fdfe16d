"""Statistics of latencies and of paired comparisons, each with the method it uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgekit.errors import InternalError

__all__ = ["Interval", "LatencySummary", "median_ratio_interval", "paired_interval", "summarize"]

_NS_PER_MS = 1e6


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: The point estimate.
        low, high: Bounds of the interval.
        level: Confidence, 0..1.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def contains(self, value: float) -> bool:
        """Whether the interval holds ``value``."""
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """A distribution of latencies in milliseconds.

    Percentiles interpolate linearly between the two nearest samples.

    Source: R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996),
    definition 7 (numpy's default).

    Attributes:
        samples: How many were measured.
    """

    samples: int
    min_ms: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def summarize(samples_ns: npt.NDArray[np.int64]) -> LatencySummary:
    """Summarizes latencies.

    Args:
        samples_ns: (N,) int64, nanoseconds.

    Raises:
        InternalError: There is no sample.
    """
    if samples_ns.size == 0:
        raise InternalError("no latency sample to summarize")
    p50, p90, p99 = (float(value) / _NS_PER_MS for value in np.percentile(samples_ns, (50, 90, 99)))
    return LatencySummary(
        samples=int(samples_ns.size),
        min_ms=float(samples_ns.min()) / _NS_PER_MS,
        mean_ms=float(samples_ns.mean()) / _NS_PER_MS,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
    )


def median_ratio_interval(a_ns: npt.NDArray[np.int64], b_ns: npt.NDArray[np.int64], *, level: float = 0.95) -> Interval:
    """Estimates the time of A over the time of B from interleaved blocks.

    Within a block, the ratio of the two medians: slow drift of the machine and bursts that hit both sides cancel, and
    outliers do not count. Over the blocks, the median of these ratios with its order-statistic (sign test) interval: it
    assumes independent blocks and nothing about their distribution, and its coverage is at least ``level``. Why not a
    bootstrap: ``docs/decisions/0005-order-statistics.md``.

    Source: H. A. David and H. N. Nagaraja, "Order Statistics", 3rd edition (2003), section 7.1.

    Args:
        a_ns, b_ns: (blocks, samples) int64, nanoseconds; row i of both was measured in the same block.
        level: Confidence.

    Raises:
        InternalError: The two have different numbers of blocks, or too few blocks for the level (6 for 95 %).
    """
    if a_ns.ndim != 2 or b_ns.ndim != 2 or a_ns.shape[0] != b_ns.shape[0]:
        raise InternalError(f"expected two arrays with the same blocks, got shapes {a_ns.shape} and {b_ns.shape}")
    logs = np.sort(np.log(np.median(a_ns, axis=1)) - np.log(np.median(b_ns, axis=1)))
    outer = _outer_rank(logs.size, level)
    low, high = float(logs[outer]), float(logs[logs.size - 1 - outer])
    return Interval(estimate=math.exp(float(np.median(logs))), low=math.exp(low), high=math.exp(high), level=level)


def paired_interval(a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Estimates the difference ``mean(a) - mean(b)`` of two paired proportions, such as two models' accuracies.

    The interval is the adjusted Wald interval, which adds half a count to each cell of the 2 x 2 table. It is centred
    on the adjusted difference, and stays sensible when the two never or rarely disagree.

    Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions", Statistics
    in Medicine 24 (2005), 729-740 (the "Wald+2" interval).

    Args:
        a, b: (N,) of 0 or 1 (or bool); entry i of both is the same image.
        level: Confidence.

    Raises:
        InternalError: Different or zero lengths, or values other than 0 and 1.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise InternalError(f"expected two equally long vectors, got shapes {first.shape} and {second.shape}")
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise InternalError("expected only 0 and 1 in the paired outcomes")
    count = first.size
    only_a = float(np.count_nonzero(first > second))
    only_b = float(np.count_nonzero(second > first))
    center = (only_a - only_b) / (count + 2)
    spread = math.sqrt(only_a + only_b + 1 - (only_a - only_b) ** 2 / (count + 2)) / (count + 2)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * spread
    return Interval(
        estimate=(only_a - only_b) / count, low=max(-1.0, center - reach), high=min(1.0, center + reach), level=level
    )


def _outer_rank(count: int, level: float) -> int:
    """Returns the largest r for which the r-th smallest and largest of ``count`` values (r from 0) hold the median.

    They miss it only if at most r of the values lie on one side of it, each with probability one half.
    """
    tail = 0.0
    rank = -1
    while rank + 1 < count / 2:
        tail += math.comb(count, rank + 1) / 2**count
        if 2 * tail > 1 - level:
            break
        rank += 1
    if rank < 0:
        raise InternalError(f"{count} blocks are too few for a {level:.0%} interval")
    return rank
