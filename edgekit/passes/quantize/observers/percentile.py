"""A given share of the values."""

from __future__ import annotations

import torch

from edgekit.passes.quantize.grids import Form
from edgekit.passes.quantize.observers.base import Observer

__all__ = ["PercentileObserver"]


class PercentileObserver(Observer):
    """Keeps a share of the values on each side of the distribution and clips what lies beyond.

    Args:
        axis: See :class:`Observer`.
        percentile: Of all values, how many percent lie below the upper end, and above the lower one.

    Source: Wu et al. 2020, arXiv:2004.09602, section 3.3 ("Percentile").
    """

    def __init__(self, *, axis: int | None = None, percentile: float = 99.99) -> None:
        super().__init__(axis=axis)
        self.percentile = percentile

    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        lower, upper, counts = self.histogram.buckets(row)
        share = counts.cumsum(0) / counts.sum()
        keep = self.percentile / 100
        last = int(torch.searchsorted(share, torch.tensor(keep, dtype=torch.float64)).clamp_max(len(upper) - 1))
        first = int(torch.searchsorted(share, torch.tensor(1 - keep, dtype=torch.float64), right=True))
        low = max(float(lower[min(first, len(lower) - 1)]), float(self.histogram.minimum[row]))
        high = min(float(upper[last]), float(self.histogram.maximum[row]))
        return low, high
