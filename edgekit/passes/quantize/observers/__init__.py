"""Observers: what is remembered of a tensor while calibration images stream past, and which range follows from it.

One file each, one protocol (:class:`Observer`), constant memory. Statistics (here) are apart from policy (where to
quantize, ``policy.py``) and from the integers (``grids.py``).
"""

from collections.abc import Callable, Mapping

from edgekit.calibration import Ranges
from edgekit.passes.quantize.observers.base import Limits, Observer
from edgekit.passes.quantize.observers.entropy import EntropyObserver
from edgekit.passes.quantize.observers.histogram import Histogram
from edgekit.passes.quantize.observers.minmax import MinMaxObserver
from edgekit.passes.quantize.observers.mse import MseObserver
from edgekit.passes.quantize.observers.percentile import PercentileObserver
from edgekit.passes.quantize.observers.search import SearchObserver

__all__ = [
    "EntropyObserver",
    "Histogram",
    "Limits",
    "MinMaxObserver",
    "MseObserver",
    "Observer",
    "PercentileObserver",
    "SearchObserver",
    "make_observer",
]

_MAKERS: Mapping[str, Callable[[Ranges], Observer]] = {
    "minmax": lambda ranges: MinMaxObserver(),
    "percentile": lambda ranges: PercentileObserver(percentile=ranges.percentile),
    "entropy": lambda ranges: EntropyObserver(),
    "mse": lambda ranges: MseObserver(),
    "search": lambda ranges: SearchObserver(percentile=ranges.percentile),
}


def make_observer(ranges: Ranges) -> Observer:
    """Returns a fresh observer of one tensor, of the recipe's kind."""
    return _MAKERS[ranges.method](ranges)
