"""The range with the least squared error."""

from __future__ import annotations

import torch

from edgekit.passes.quantize.grids import Form, steps
from edgekit.passes.quantize.observers.base import Observer

__all__ = ["MseObserver"]

# A tighter range must beat the wider one by this factor: histograms are estimates, and clipping is what unseen data
# punish.
_WORTH_CLIPPING = 0.98
# Shares of the range: fine steps down to 0.3, then ever coarser ones, so that an outlier of any size can be left out.
_FINE = tuple(1.0 - 0.025 * step for step in range(29))
_COARSE = tuple(0.3 * 0.8**step for step in range(1, 40))
# The coarse ones are tried where the best of the fine ones is among their last, or where all of these are so wide that
# most values round to zero: their errors say nothing of what lies below.
_AT_THE_END = 0.4
_WIDE_STEP = 0.5  # root mean squares


class MseObserver(Observer):
    """Clips the range where that lowers the mean squared quantization error over the histogram.

    Both ends are shrunk together, then each alone. The error of a range is summed cell by cell from running sums over
    the buckets, so a range costs 256 look-ups and not a pass over the values.

    Source: Nagel et al. 2021, arXiv:2106.08295, section 3.1 ("Mean squared error").
    """

    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        low = min(float(self.histogram.minimum[row]), 0.0)
        high = max(float(self.histogram.maximum[row]), 0.0)
        if low == high:
            return low, high
        sums = _Sums(*self.histogram.buckets(row))
        best, least = (1.0, 1.0), float(sums.errors(torch.tensor([[low, high]], dtype=torch.float64), form)[0])
        wide = _FINE[-1] * (high - low) / form.levels > _WIDE_STEP * sums.root_mean_square
        for turn in range(3 if low < 0 < high and not form.symmetric else 1):
            for shares in (_FINE, _COARSE):
                pairs = [((share, share), (share, best[1]), (best[0], share))[turn] for share in shares]
                ranges = torch.tensor([(low * a, high * b) for a, b in pairs], dtype=torch.float64)
                for pair, error in zip(pairs, sums.errors(ranges, form).tolist(), strict=True):
                    if error < least * _WORTH_CLIPPING:
                        best, least = pair, error
                if not wide and (min(best), best[0], best[1])[turn] > _AT_THE_END:
                    break
        return low * best[0], high * best[1]


class _Sums:
    """Running sums over sorted buckets of count, value and squared value."""

    def __init__(self, lower: torch.Tensor, upper: torch.Tensor, counts: torch.Tensor) -> None:
        self._centers = (lower + upper) / 2
        # Values are taken as even over their bucket: its own variance is width^2 / 12.
        squares = self._centers.square() + (upper - lower).square() / 12
        stacked = torch.stack([counts, counts * self._centers, counts * squares])
        self._running = torch.cat([torch.zeros((3, 1), dtype=torch.float64), stacked.cumsum(1)], 1)

    @property
    def root_mean_square(self) -> float:
        """Of all values."""
        return float((self._running[2, -1] / self._running[0, -1]).sqrt())

    def errors(self, ranges: torch.Tensor, form: Form) -> torch.Tensor:
        """Sums the squared errors of the grids over (ranges, 2) low and high ends; (ranges,)."""
        low, high = ranges[:, 0], ranges[:, 1]
        step = steps(low, high, form)
        zero = torch.zeros_like(step) if form.symmetric else (-low / step).round().clamp(form.qmin, form.qmax)
        integers = torch.arange(form.qmin, form.qmax + 1, dtype=torch.float64)
        reals = (integers - zero[:, None]) * step[:, None]
        # What lies between the middles of neighbours goes to the real between them.
        middles = (reals[:, :-1] + reals[:, 1:]) / 2
        place = torch.searchsorted(self._centers, middles.flatten()).view(middles.shape)
        ends = torch.tensor([0, len(self._centers)]).expand(len(ranges), 2)
        bounds = torch.cat([ends[:, :1], place, ends[:, 1:]], 1)
        number, total, squares = (self._running[kind][bounds].diff(dim=1) for kind in range(3))
        return (squares - 2 * reals * total + reals.square() * number).sum(1)
