"""The whole range that was seen."""

from __future__ import annotations

from edgekit.passes.quantize.grids import Form
from edgekit.passes.quantize.observers.base import Observer

__all__ = ["MinMaxObserver"]


class MinMaxObserver(Observer):
    """Keeps the smallest and the largest value. Nothing of what was seen is clipped; one outlier widens every step.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.
    """

    def _row_limits(self, form: Form, row: int) -> tuple[float, float]:
        return float(self.histogram.minimum[row]), float(self.histogram.maximum[row])
