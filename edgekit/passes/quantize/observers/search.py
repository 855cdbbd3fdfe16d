"""All ways at once, for a choice by measured error."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.passes.quantize.grids import Form
from edgekit.passes.quantize.observers.base import Limits, Observer
from edgekit.passes.quantize.observers.entropy import EntropyObserver
from edgekit.passes.quantize.observers.minmax import MinMaxObserver
from edgekit.passes.quantize.observers.mse import MseObserver
from edgekit.passes.quantize.observers.percentile import PercentileObserver

__all__ = ["SearchObserver"]


class SearchObserver(Observer):
    """Offers what every other observer would choose; :mod:`edgekit.passes.quantize.search` measures which is best.

    Until it was measured, its own choice is that of :class:`MseObserver`.

    Args:
        axis: See :class:`Observer`.
        percentile: See :class:`PercentileObserver`.
    """

    def __init__(self, *, axis: int | None = None, percentile: float = 99.99) -> None:
        super().__init__(axis=axis)
        self.percentile = percentile

    def candidates(self, form: Form) -> Mapping[str, Limits]:
        """Returns the range that each way would choose, by its name; equal ones once."""
        others: dict[str, Observer] = {
            "mse": MseObserver(),
            "minmax": MinMaxObserver(),
            "percentile": PercentileObserver(percentile=self.percentile),
            "entropy": EntropyObserver(),
        }
        found: dict[str, Limits] = {}
        for name, other in others.items():
            other.share(self)
            limits = other.limits(form)
            if not any(bool((limits[0] == item[0]).all() and (limits[1] == item[1]).all()) for item in found.values()):
                found[name] = limits
        return found

    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        other = MseObserver()
        other.share(self)
        return other._row_limits(form, row)
