"""The drawing of one tensor: how often each value was seen, and which range the integers stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.diagnostics.markup import Markup, coordinate, element, void
from edgekit.diagnostics.records import Histogram, Range, Tensor
from edgekit.diagnostics.words import plain, range_text, share

__all__ = ["histogram_svg"]

_WIDTH, _LEFT, _RIGHT = 400.0, 58.0, 10.0
_TOP, _FLOOR = 8.0, 112.0
_STRIP = 14.0  # height of one line of the ranges below the histogram
_MOST_TICKS = 4
_THINNEST = 1.5  # what is narrower in a wide view is still to be seen


@dataclass(frozen=True, kw_only=True)
class _View:
    """The part of the number line that is drawn; ``low < high``."""

    low: float
    high: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)


def histogram_svg(tensor: Tensor) -> Markup | None:
    """Draws a tensor: the counts on a logarithmic axis, the chosen range behind them, and every known range below.

    Bins outside the chosen range have another colour, and the text alternative names their share.

    Args:
        tensor: What to draw.

    Returns:
        An ``<svg>`` that scales with the page; None where neither a histogram nor a range is known.
    """
    strips = _strips(tensor)
    view = _view(tensor.histogram, [extent for _, _, extent in strips])
    if view is None:
        return None
    bottom = _FLOOR + 20 + _STRIP * len(strips)
    parts = [
        *_chosen_band(tensor, view),
        *_count_axis(tensor.histogram),
        *_bars(tensor, view),
        *_value_axis(view),
        *_range_strips(strips, view),
    ]
    attributes = {
        "class": "histogram",
        "viewBox": f"0 0 {coordinate(_WIDTH)} {coordinate(bottom)}",
        "role": "img",
        "aria-label": _alternative(tensor),
    }
    return element("svg", attributes, *parts)


def _strips(tensor: Tensor) -> list[tuple[str, str, Range]]:
    first, second = (None, None) if tensor.halves is None else tensor.halves
    known = [
        ("observed", "observed", tensor.observed),
        ("chosen", "chosen", tensor.range),
        ("1st half", "half", first),
        ("2nd half", "half", second),
    ]
    return [(label, style, extent) for label, style, extent in known if extent is not None]


def _view(histogram: Histogram | None, extents: Sequence[Range]) -> _View | None:
    ends = [end for extent in extents for end in extent]
    if histogram is not None:
        ends += [histogram.edges[0], histogram.edges[-1]]
    if not ends:
        return None
    low, high = min(ends), max(ends)
    # A constant tensor gets room on both sides, and what differs only by rounding counts as constant.
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = abs(low) / 2 if low else 0.5
        low, high = low - margin, high + margin
    margin = (high - low) * 0.01
    return _View(low=low - margin, high=high + margin)


def _chosen_band(tensor: Tensor, view: _View) -> Iterator[Markup]:
    if tensor.range is None:
        return
    left, right = (view.x(end) for end in tensor.range)
    box = {"x": left, "y": _TOP, "width": max(right - left, 1.0), "height": _FLOOR - _TOP}
    yield void("rect", {"class": "band", **{name: coordinate(value) for name, value in box.items()}})
    edges = "".join(f"M{coordinate(x)} {coordinate(_TOP)}V{coordinate(_FLOOR)}" for x in (left, right))
    yield void("path", {"class": "edge", "d": edges})


def _y(count: float, most: float) -> int:
    # Whole steps: finer ones cannot be seen, and they would make the page a tenth larger.
    return round(_FLOOR - (_FLOOR - _TOP) * math.log1p(count) / math.log1p(most))


def _count_axis(histogram: Histogram | None) -> Iterator[Markup]:
    if histogram is None or max(histogram.counts) == 0:
        words = "no histogram" if histogram is None else "no values"
        yield element("text", {"x": coordinate(_LEFT + 6), "y": coordinate(_TOP + 14)}, words)
        return
    most = max(histogram.counts)
    decades = [power for power in range(19) if 10**power <= most]
    step = -(-len(decades) // _MOST_TICKS) if decades else 1
    for power in decades[::step]:
        y = _y(10**power, most)
        yield void(
            "path", {"class": "grid", "d": f"M{coordinate(_LEFT)} {coordinate(y)}H{coordinate(_WIDTH - _RIGHT)}"}
        )
        place = {"class": "end", "x": coordinate(_LEFT - 5), "y": coordinate(y + 3.5)}
        yield element("text", place, _power(power))


def _power(power: int) -> str:
    thousands, rest = divmod(power, 3)
    suffix = ["", "k", "M", "G", "T", "P", "E"][thousands]
    return f"{10**rest}{suffix}"


def _bars(tensor: Tensor, view: _View) -> Iterator[Markup]:
    histogram = tensor.histogram
    if histogram is None or max(histogram.counts) == 0:
        return
    most = max(histogram.counts)
    inside: list[tuple[float, float, float]] = []
    outside: list[tuple[float, float, float]] = []
    for index, count in enumerate(histogram.counts):
        if count > 0:
            low, high = histogram.edges[index], histogram.edges[index + 1]
            # A bin that an end of the range cuts counts as inside: how much of it is outside is not known.
            cut_off = tensor.range is not None and (high < tensor.range[0] or low > tensor.range[1])
            left, right = view.x(low), view.x(high)
            if right - left < _THINNEST:
                left, right = (left + right - _THINNEST) / 2, (left + right + _THINNEST) / 2
            (outside if cut_off else inside).append((left, right, _y(count, most)))
    for style, pieces in (("in", inside), ("out", outside)):
        if pieces:
            yield void("path", {"class": style, "d": _outline(pieces)})


def _outline(pieces: Sequence[tuple[float, float, float]]) -> str:
    """Returns the outline of bars side by side, as one path: neighbours share their edge."""
    floor = coordinate(_FLOOR)
    words: list[str] = []
    reached, level = "", floor
    for left, right, top in sorted(pieces):
        start, end, height = coordinate(left), coordinate(right), coordinate(top)
        if start != reached:
            words += [f"V{floor}" if words else "", f"M{start} {floor}"]
            level = floor
        words += [f"V{height}" if height != level else "", f"H{end}"]
        reached, level = end, height
    return "".join([*words, f"V{floor}"])


def _value_axis(view: _View) -> Iterator[Markup]:
    floor = coordinate(_FLOOR)
    yield void("path", {"class": "axis", "d": f"M{coordinate(_LEFT)} {floor}H{coordinate(_WIDTH - _RIGHT)}"})
    for value in _nice_ticks(view):
        place = {"class": "mid", "x": coordinate(view.x(value)), "y": coordinate(_FLOOR + 12)}
        yield element("text", place, plain(value))


def _nice_ticks(view: _View) -> list[float]:
    raw = (view.high - view.low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= raw), 10 * power)
    first = math.ceil(view.low / step)
    ticks = [(first + index) * step for index in range(_MOST_TICKS + 2)]
    # Far from zero the values may differ less than their labels tell: one label is then enough.
    return list({plain(value): value for value in ticks if value <= view.high}.values())


def _range_strips(strips: Sequence[tuple[str, str, Range]], view: _View) -> Iterator[Markup]:
    for index, (label, style, extent) in enumerate(strips):
        y = _FLOOR + 26 + _STRIP * index
        left, right = (view.x(end) for end in extent)
        if right - left < _THINNEST:
            left, right = (left + right - _THINNEST) / 2, (left + right + _THINNEST) / 2
        yield element("text", {"class": "end", "x": coordinate(_LEFT - 5), "y": coordinate(y + 3.5)}, label)
        line = f"M{coordinate(left)} {coordinate(y)}H{coordinate(right)}"
        caps = "".join(f"M{coordinate(x)} {coordinate(y - 3)}v6" for x in (left, right))
        yield void("path", {"class": f"strip {style}", "d": line + caps})


def _alternative(tensor: Tensor) -> str:
    parts = [f"Histogram of {tensor.name}"]
    if tensor.observed is not None:
        parts.append(f"values observed in {range_text(tensor.observed)}")
    if tensor.range is not None:
        parts.append(f"chosen range {range_text(tensor.range)}")
    if tensor.saturated is not None:
        parts.append(f"{share(tensor.saturated)} of the values outside")
    return "; ".join(parts)
