"""What every observer can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from edgekit.errors import DataError
from edgekit.passes.quantize.grids import Form
from edgekit.passes.quantize.observers.histogram import Histogram

__all__ = ["Limits", "Observer"]

Limits = tuple[torch.Tensor, torch.Tensor]
"""Lower and upper end of a range: float64, () for a tensor or (channels,) for its channels."""

# Values drawn per batch and tensor: enough that the histogram's tails settle, few enough that observing costs less than
# inference.
_DRAW = 65536
# Channels have histograms of their own, so theirs are coarser: 1/128 instead of 1/512 of a power of two.
_CHANNEL_BITS, _CHANNEL_OCTAVES = 7, 24


class Observer(ABC):
    """Watches a tensor while images stream past, in constant memory, and then says which range int8 should cover.

    Minimum and maximum are exact; of large tensors the histogram counts an evenly spaced part.

    Args:
        axis: Channel dimension, for a range per channel; None for one range.
    """

    def __init__(self, *, axis: int | None = None) -> None:
        self.axis = axis
        self._histogram: Histogram | None = None

    @property
    def histogram(self) -> Histogram:
        """What was seen."""
        return Histogram() if self._histogram is None else self._histogram

    @property
    def observed(self) -> Limits:
        """Smallest and largest value seen."""
        histogram = self.histogram
        low, high = histogram.minimum, histogram.maximum
        return (low[0], high[0]) if self.axis is None else (low, high)

    def update(self, values: torch.Tensor) -> None:
        """Adds the values of one batch: any shape, floating point.

        Raises:
            DataError: There is a NaN or an infinity among them.
        """
        values = values.detach()
        rows = _storage_order(values)[None] if self.axis is None else _channels(values, self.axis)
        if rows.shape[1] == 0:
            return
        low, high = torch.aminmax(rows, dim=1) if self.axis is not None else _extent(rows)
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise DataError("a tensor holds NaN or infinity")
        if self._histogram is None:
            self._histogram = (
                Histogram()
                if self.axis is None
                else Histogram(len(rows), mantissa_bits=_CHANNEL_BITS, octaves=_CHANNEL_OCTAVES)
            )
        self._histogram.widen(low, high)
        stride = rows.numel() // _DRAW
        # An odd stride does not lock onto rows or channels, whose sizes are mostly even.
        drawn = rows[:, :: stride | 1] if stride > 1 and self.axis is None else rows
        self._histogram.update(drawn.float().contiguous())

    def merge(self, other: Observer) -> None:
        """Adds what another observer of the same tensor, or of a tied one, has seen."""
        if other._histogram is None:
            return
        if self._histogram is None:
            self._histogram = Histogram(
                other._histogram.rows,
                **({} if self.axis is None else {"mantissa_bits": _CHANNEL_BITS, "octaves": _CHANNEL_OCTAVES}),
            )
        self._histogram.merge(other._histogram)

    def limits(self, form: Form) -> Limits:
        """Returns the range that integers of this form should cover; it always includes zero."""
        if self._histogram is None:
            zero = torch.zeros((), dtype=torch.float64)
            return zero, zero
        pairs = [self._row_limits(form, row) for row in range(self._histogram.rows)]
        low = torch.tensor([min(pair[0], 0.0) for pair in pairs], dtype=torch.float64)
        high = torch.tensor([max(pair[1], 0.0) for pair in pairs], dtype=torch.float64)
        return (low[0], high[0]) if self.axis is None else (low, high)

    def share(self, other: Observer) -> None:
        """Takes what another observer has seen for its own; the two have one histogram from now on."""
        self.axis, self._histogram = other.axis, other._histogram

    @abstractmethod
    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        """The range of one channel of a histogram that is not empty."""


def _storage_order(values: torch.Tensor) -> torch.Tensor:
    """Flattens without copying where the tensor is dense, channels last included: the order is of no matter here."""
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).reshape(-1)
    return values.reshape(-1)


def _channels(values: torch.Tensor, axis: int) -> torch.Tensor:
    return values.transpose(0, axis).reshape(values.shape[axis], -1)


def _extent(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Over the whole at once: far faster than along a dimension of size one.
    low, high = torch.aminmax(rows)
    return low[None], high[None]
