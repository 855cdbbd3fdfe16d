"""Observers: what is remembered of a tensor while calibration images stream past, in constant memory.

Statistics (here) are apart from policy (where to quantize, ``policy.py``) and from schemes (which integers,
``schemes.py``).
"""

from __future__ import annotations

import math

import torch

from edgekit.errors import DataError

__all__ = ["BINS", "HistogramObserver"]

BINS = 2048
# Values drawn per batch and tensor: enough that the histogram's tails settle, few enough that observing costs less than
# inference.
DRAW = 65536


class HistogramObserver:
    """Exact minimum and maximum, and a histogram of values on a grid that grows by doubling.

    Bin edges are integer multiples of a power of two, so growing merges pairs of bins exactly and the result does not
    depend on which image came first.

    Attributes:
        minimum, maximum: Exact, over every value seen.
        count: Values in the histogram.
    """

    def __init__(self) -> None:
        self.minimum = math.inf
        self.maximum = -math.inf
        self.count = 0
        self._exponent: int | None = None
        self._first = 0
        self._bins = torch.zeros(BINS, dtype=torch.float64)

    def update(self, values: torch.Tensor, *, where: str) -> None:
        """Adds the values of one batch (any shape, floating point).

        Raises:
            DataError: The tensor holds NaN or infinity; ``where`` names it.
        """
        low, high = (float(item) for item in torch.aminmax(values.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                f"calibration: tensor '{where}' holds NaN or infinity",
                hint="check the model's weights and the [input] scale, mean and std of the task spec",
            )
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        flat = values.detach().flatten()
        # An odd stride does not lock onto rows or channels, whose sizes are mostly even.
        stride = flat.numel() // DRAW
        drawn = flat[:: stride | 1] if stride else flat
        self._grow(low, high)
        assert self._exponent is not None
        index = torch.floor(torch.ldexp(drawn.double(), torch.tensor(-self._exponent))).long() - self._first
        self._bins += torch.bincount(index, minlength=BINS).double()
        self.count += drawn.numel()

    def histogram(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Returns the non-empty bins: centres and counts, both float64 of shape (bins,), and the width of a bin."""
        if self._exponent is None:
            return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 1.0
        used = self._bins.nonzero().flatten()
        width = math.ldexp(1.0, self._exponent)
        return (used.double() + self._first + 0.5) * width, self._bins[used], width

    def _grow(self, low: float, high: float) -> None:
        """Moves and coarsens the window of bins until it covers ``low`` to ``high`` and everything seen before."""
        if self._exponent is None:
            # A constant tensor still needs a bin width: its own magnitude, or one.
            spread = high - low if high > low else abs(high) if high != 0 else 1.0
            self._exponent = math.floor(math.log2(spread / BINS))
        used = self._bins.nonzero().flatten() + self._first
        first = min([math.floor(math.ldexp(low, -self._exponent)), *used[:1].tolist()])
        last = max([math.floor(math.ldexp(high, -self._exponent)), *used[-1:].tolist()])
        doublings = 0
        while last - first >= BINS:
            first, last, doublings = first // 2, last // 2, doublings + 1
        if doublings == 0 and self._first <= first and last < self._first + BINS:
            return
        bins = torch.zeros(BINS, dtype=torch.float64)
        index = torch.div(used, 2**doublings, rounding_mode="floor") - first
        bins.index_add_(0, index, self._bins[used - self._first])
        self._bins, self._first, self._exponent = bins, first, self._exponent + doublings
