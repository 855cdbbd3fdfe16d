"""The range whose quantized distribution is closest to the float one."""

from __future__ import annotations

import torch

from edgekit.passes.quantize.grids import Form
from edgekit.passes.quantize.observers.base import Observer

__all__ = ["BINS", "EntropyObserver"]

BINS = 2048
_STRIDE = 8  # thresholds are tried at every eighth bin


class EntropyObserver(Observer):
    """Clips at the threshold with the least Kullback-Leibler divergence between the clipped and the int8 distribution.

    The distribution is that of magnitudes, in 2,048 bins; both ends get the threshold, up to what was seen. A
    two-sided tensor has half of the integers for each side. Zeros are no part of it: every grid holds them exactly, and
    after a ReLU they would outweigh all else.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 28 to 36.
    """

    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        low, high = float(self.histogram.minimum[row]), float(self.histogram.maximum[row])
        peak = max(-low, high)
        if peak <= 0:
            return low, high
        edges = torch.linspace(0, peak, BINS + 1, dtype=torch.float64)
        magnitudes = self._magnitudes(edges, row)
        levels = form.levels // 2 if low < 0 else form.levels
        threshold = float(edges[best_bins(magnitudes, levels)])
        return max(low, -threshold), min(high, threshold)

    def _magnitudes(self, edges: torch.Tensor, row: int) -> torch.Tensor:
        """(bins,) counts of magnitudes, exact zeros left out."""
        both = torch.cat([-edges.flip(0)[:-1], edges])
        counts = self.histogram.spread(both, row)
        magnitudes = counts[BINS:] + counts[:BINS].flip(0)
        magnitudes[0] = magnitudes[1]
        return magnitudes


def best_bins(counts: torch.Tensor, levels: int) -> int:
    """Returns how many of the first bins to keep.

    Args:
        counts: (bins,) float64.
        levels: Integers that stand for what is kept.
    """
    best, least = len(counts), torch.inf
    for kept in range(levels, len(counts) + 1, _STRIDE):
        divergence = _divergence(counts, kept, levels)
        if divergence < least:
            best, least = kept, divergence
    return best


def _divergence(counts: torch.Tensor, kept: int, levels: int) -> float:
    inside = counts[:kept]
    clipped = inside.clone()
    clipped[-1] += counts[kept:].sum()
    total = clipped.sum()
    if total <= 0:
        return torch.inf
    # Each integer stands for a run of bins; its count goes evenly to those of them that are not empty.
    owner = torch.div(torch.arange(kept) * levels, kept, rounding_mode="floor")
    used = (inside > 0).double()
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, owner, inside)
    numbers = torch.zeros(levels, dtype=torch.float64).index_add_(0, owner, used)
    expanded = torch.where(used > 0, (sums / numbers.clamp_min(1))[owner], torch.zeros(1, dtype=torch.float64))
    p, q = clipped / total, expanded / expanded.sum().clamp_min(1e-300)
    # A bin that the integers leave empty but the data do not: as unlikely as one value in all.
    q = q.clamp_min(1 / float(total) / 2)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen]).log()).sum())
