"""A streamed histogram with buckets of equal relative width: constant memory, exact merging, no range to know ahead.

A float32 is its sign, an exponent and 23 bits of mantissa; a bucket is all values that agree in sign, exponent and the
first bits of the mantissa. So a bucket is about as wide as a fixed share of the value, near zero as far out: one value
at ten thousand times the spread of all others costs them no resolution, as it does where buckets are equally wide.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Histogram"]

_FRACTION = 23  # bits of float32's mantissa


class Histogram:
    """Counts of values by bucket, for one tensor or for each of its channels, with exact minimum and maximum.

    The window of buckets reaches from the largest magnitude seen ``octaves`` powers of two down; what is smaller
    counts as zero. It moves up when a larger value comes. Neither the order of updates nor their grouping changes the
    result.

    Args:
        rows: Channels; 1 for a whole tensor.
        mantissa_bits: A bucket is 2^-mantissa_bits of its power of two wide.
        octaves: Powers of two in the window.

    Attributes:
        minimum, maximum: (rows,) float64, exact over every value given; infinite before the first.
    """

    def __init__(self, rows: int = 1, *, mantissa_bits: int = 9, octaves: int = 32) -> None:
        self.minimum = torch.full((rows,), torch.inf, dtype=torch.float64)
        self.maximum = torch.full((rows,), -torch.inf, dtype=torch.float64)
        self._bits = mantissa_bits
        self._side = octaves << mantissa_bits
        # Zero, then the positive buckets upwards, then the negative ones by magnitude.
        self._counts = torch.zeros((rows, 1 + 2 * self._side), dtype=torch.int64)
        # Biased exponent just above the window; -1 before the first value.
        self._above = torch.full((rows,), -1, dtype=torch.int64)

    @property
    def rows(self) -> int:
        """Channels; 1 for a whole tensor."""
        return len(self._counts)

    @property
    def total(self) -> torch.Tensor:
        """(rows,) int64: how many values were counted."""
        return self._counts.sum(1)

    def update(self, values: torch.Tensor) -> None:
        """Counts values: (rows, any number), float32, finite."""
        if values.numel() == 0:
            return
        # Much quicker than aminmax along a dimension.
        self.widen(values.amin(1), values.amax(1))
        # This runs for every tensor and batch, so it works in place.
        bits = values.view(torch.int32)
        base = ((self._above << self._bits) - self._side).int()
        place = (bits & 0x7FFFFFFF).bitwise_right_shift_(_FRACTION - self._bits).sub_(base[:, None] - 1).clamp_(min=0)
        # The shifted sign is all ones; what counts as zero has none.
        place += (bits >> 31).bitwise_and_(self._side).mul_(place > 0)
        width = self._counts.shape[1]
        if self.rows > 1:
            place = place + torch.arange(self.rows)[:, None] * width
        self._counts += torch.bincount(place.flatten(), minlength=self.rows * width).view(self.rows, width)

    def widen(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Takes note of exact limits (rows,): also of values that :meth:`update` was not given."""
        self.minimum = torch.minimum(self.minimum, low.double())
        self.maximum = torch.maximum(self.maximum, high.double())
        peak = torch.maximum(low.abs(), high.abs()).float()
        self._raise_window((peak.view(torch.int32).long() >> _FRACTION) + 1)

    def merge(self, other: Histogram) -> None:
        """Adds what another histogram of the same shape has counted."""
        self._raise_window(other._above)
        counts = other._counts
        if not torch.equal(other._above, self._above):
            moved = Histogram(self.rows, mantissa_bits=self._bits, octaves=self._side >> self._bits)
            moved._counts, moved._above = counts.clone(), other._above.clone()
            moved._raise_window(self._above)
            counts = moved._counts
        self._counts = self._counts + counts
        self.minimum = torch.minimum(self.minimum, other.minimum)
        self.maximum = torch.maximum(self.maximum, other.maximum)

    def buckets(self, row: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the buckets of a row that hold something, in rising order.

        Returns:
            ``(lower, upper, counts)``, each (buckets,) float64. The bucket of zero has no width.
        """
        counts = self._counts[row]
        base = (int(self._above[row]) << self._bits) - self._side
        positive = counts[1 : 1 + self._side].nonzero().flatten()
        negative = counts[1 + self._side :].nonzero().flatten().flip(0)
        near, far = (self._edge(positive + base), self._edge(positive + base + 1))
        below, above = (-self._edge(negative + base + 1), -self._edge(negative + base))
        zero = counts[:1].nonzero().flatten().double()
        lower = torch.cat([below, zero, near])
        upper = torch.cat([above, zero, far])
        number = torch.cat([counts[1 + self._side :][negative], counts[:1][counts[:1] > 0], counts[1:][positive]])
        return lower, upper, number.double()

    def spread(self, edges: torch.Tensor, row: int = 0) -> torch.Tensor:
        """Returns a row's counts between given edges, each bucket's spread evenly over its width.

        Args:
            edges: (bins + 1,) float64, rising. Values beyond the ends go into the first and the last bin.
            row: Which channel.

        Returns:
            (bins,) float64.
        """
        lower, upper, counts = self.buckets(row)
        width = (upper - lower).clamp_min(1e-300)
        before = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0)])
        place = torch.searchsorted(upper, edges[1:-1], right=True).clamp_max(len(upper) - 1)
        inside = ((edges[1:-1] - lower[place]) / width[place]).clamp(0, 1)
        cumulative = before[place] + inside * counts[place]
        ends = torch.cat([torch.zeros(1, dtype=torch.float64), cumulative, before[-1:]])
        return ends.diff()

    def share_outside(self, low: float, high: float, row: int = 0) -> float:
        """Returns the share of a row's values below ``low`` or above ``high``, to within a bucket."""
        lower, upper, counts = self.buckets(row)
        outside = counts[(lower + upper) / 2 < low].sum() + counts[(lower + upper) / 2 > high].sum()
        return float(outside / counts.sum().clamp_min(1))

    def _edge(self, key: torch.Tensor) -> torch.Tensor:
        """The smallest magnitude of a bucket; beyond float32's largest it is infinite, so the exponent stops there."""
        bits = (key << (_FRACTION - self._bits)).clamp(0, 0x7F7FFFFF)
        return bits.int().view(torch.float32).double()

    def _raise_window(self, above: torch.Tensor) -> None:
        first = self._above < 0
        raised = torch.maximum(self._above, above)
        shift = torch.where(first, torch.zeros_like(raised), (raised - self._above) << self._bits)
        for row in shift.nonzero().flatten().tolist():
            self._counts[row] = self._shifted(self._counts[row], min(int(shift[row]), self._side))
        self._above = raised

    def _shifted(self, counts: torch.Tensor, shift: int) -> torch.Tensor:
        """Moves the window up by ``shift`` buckets: the lowest ones become zero."""
        moved: Any = torch.zeros_like(counts)
        moved[0] = counts[0]
        for start in (1, 1 + self._side):
            side = counts[start : start + self._side]
            moved[0] += side[:shift].sum()
            moved[start : start + self._side - shift] = side[shift:]
        return torch.as_tensor(moved)
