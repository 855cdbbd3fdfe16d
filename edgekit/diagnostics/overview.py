"""The drawing of a whole network: own and accumulated SQNR of every layer, in the graph's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.diagnostics.markup import Markup, coordinate, element, void
from edgekit.diagnostics.records import Diagnosis, Layer
from edgekit.diagnostics.words import decibel

__all__ = ["overview_svg"]

_WIDTH, _HEIGHT = 1000.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 6.0, 34.0, 24.0
_BADGES = 8  # how many of the worst layers carry their rank
_BADGE_WIDTH = 20.0
# Decibels outside of these are drawn at the border: nothing real is there.
_LOWEST, _HIGHEST = -40.0, 140.0


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """Where a layer and a ratio are drawn."""

    layers: int
    low_db: float
    high_db: float

    @property
    def slot(self) -> float:
        return (_WIDTH - _LEFT - _RIGHT) / self.layers

    def x(self, index: int) -> float:
        return _LEFT + self.slot * (index + 0.5)

    def y(self, sqnr_db: float) -> float:
        inside = min(max(sqnr_db, self.low_db), self.high_db)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (inside - self.low_db) / (self.high_db - self.low_db)


def overview_svg(diagnosis: Diagnosis, *, prefix: str) -> Markup | None:
    """Draws one bar a layer for its own SQNR, and a line for the accumulated one; the worst carry their rank.

    Each layer is a link to its details and has its numbers as its title.

    Args:
        diagnosis: What to draw.
        prefix: What the ids of the details begin with; the layer's index follows.

    Returns:
        An ``<svg>`` that scales with the page; None where there are no layers.
    """
    if not diagnosis.layers:
        return None
    axes = _axes(diagnosis.layers)
    hatch = f"{prefix}hatch"
    parts = [
        *_hatch(hatch),
        *_grid(axes),
        *(_column(layer, axes, prefix, hatch) for layer in diagnosis.layers),
        *_line(diagnosis.layers, axes),
        *_badges(diagnosis.worst_first[:_BADGES], axes, prefix),
        element(
            "text",
            {"class": "mid", "x": coordinate((_LEFT + _WIDTH) / 2), "y": coordinate(_HEIGHT - 7)},
            f"{len(diagnosis.layers)} layers in the order of the graph",
        ),
    ]
    attributes = {
        "class": "overview",
        "viewBox": f"0 0 {coordinate(_WIDTH)} {coordinate(_HEIGHT)}",
        "role": "group",
        "aria-label": "SQNR of each layer, in the order of the graph; the list below has the same numbers",
    }
    return element("svg", attributes, *parts)


def _axes(layers: Sequence[Layer]) -> _Axes:
    values = [
        value for layer in layers for value in (layer.own_sqnr_db, layer.accumulated_sqnr_db) if value is not None
    ]
    low = max(min([0.0, *values]), _LOWEST)
    high = min(max([10.0, *values]), _HIGHEST)
    return _Axes(layers=len(layers), low_db=10 * (low // 10), high_db=-10 * (-high // 10))


def _hatch(name: str) -> Iterator[Markup]:
    pattern = {"id": name, "width": "6", "height": "6", "patternUnits": "userSpaceOnUse"}
    line = void("path", {"class": "hatch", "d": "M-1 7L7 -1M-1 1L1 -1M5 7L7 5"})
    yield element("defs", {}, element("pattern", pattern, line))


def _grid(axes: _Axes) -> Iterator[Markup]:
    step = 10 if axes.high_db - axes.low_db <= 80 else 20
    for value in range(round(axes.low_db), round(axes.high_db) + 1, step):
        y = axes.y(value)
        style = "axis" if value == 0 else "grid"
        yield void("path", {"class": style, "d": f"M{coordinate(_LEFT)} {coordinate(y)}H{coordinate(_WIDTH - _RIGHT)}"})
        place = {"class": "end", "x": coordinate(_LEFT - 6), "y": coordinate(y + 4)}
        yield element("text", place, str(value))
    yield element("text", {"class": "end", "x": coordinate(_LEFT - 6), "y": coordinate(_TOP - 16)}, "dB")


def _column(layer: Layer, axes: _Axes, prefix: str, hatch: str) -> Markup:
    left = _LEFT + axes.slot * layer.index
    slot = {
        "x": coordinate(left),
        "y": coordinate(_TOP),
        "width": coordinate(axes.slot),
        "height": coordinate(_HEIGHT - _BOTTOM - _TOP),
    }
    if layer.is_float:
        words = f"{layer.name}: float" + (f", {layer.reason}" if layer.reason else "")
        drawn = void("rect", {"fill": f"url(#{hatch})", **slot})
    else:
        words = (
            f"{layer.name}: own {decibel(layer.own_sqnr_db)} dB, accumulated {decibel(layer.accumulated_sqnr_db)} dB"
        )
        drawn = void("rect", {"class": "hit", **slot})
    parts = [element("title", {}, words), drawn]
    if layer.own_sqnr_db is not None:
        wide = min(axes.slot * 0.72, 30.0)
        ends = sorted((axes.y(0.0), axes.y(layer.own_sqnr_db)))
        box = {
            "x": coordinate(axes.x(layer.index) - wide / 2),
            "y": coordinate(ends[0]),
            "width": coordinate(wide),
            "height": coordinate(max(ends[1] - ends[0], 1.0)),
        }
        parts.append(void("rect", {"class": "own", **box}))
    return element("a", {"href": f"#{prefix}{layer.index}"}, *parts)


def _line(layers: Sequence[Layer], axes: _Axes) -> Iterator[Markup]:
    """Joins neighbours that have a number; one without neighbours is a dot, which round ends make of no length."""
    words: list[str] = []
    drawn = False
    for layer in layers:
        if layer.accumulated_sqnr_db is None:
            drawn = False
            continue
        place = f"{coordinate(axes.x(layer.index))} {coordinate(axes.y(layer.accumulated_sqnr_db))}"
        words.append(f"L{place}" if drawn else f"M{place}h0")
        drawn = True
    if words:
        yield void("path", {"class": "accumulated", "d": "".join(words)})


def _badges(worst: Sequence[Layer], axes: _Axes, prefix: str) -> Iterator[Markup]:
    ranked = [layer for layer in worst if layer.rank is not None]
    places = _spread([axes.x(layer.index) for layer in sorted(ranked, key=lambda layer: layer.index)])
    for layer, x in zip(sorted(ranked, key=lambda layer: layer.index), places, strict=True):
        top = _TOP - 14
        bar = axes.y(0.0 if layer.own_sqnr_db is None else max(layer.own_sqnr_db, 0.0))
        leader = f"M{coordinate(x)} {coordinate(top + 8)}L{coordinate(axes.x(layer.index))} {coordinate(bar)}"
        yield void("path", {"class": "leader", "d": leader})
        place = {"x": coordinate(x - 9), "y": coordinate(top - 9), "width": "18", "height": "18", "rx": "9"}
        number = element("text", {"class": "badge", "x": coordinate(x), "y": coordinate(top + 4)}, f"{layer.rank}")
        title = element("title", {}, f"rank {layer.rank}: {layer.name}")
        yield element(
            "a", {"href": f"#{prefix}{layer.index}"}, title, void("rect", {"class": "badge", **place}), number
        )


def _spread(places: Sequence[float]) -> list[float]:
    """Moves badges apart that would cover each other, in their order, and back from the right border."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + _BADGE_WIDTH) if moved else max(place, _LEFT + _BADGE_WIDTH / 2))
    limit = _WIDTH - _BADGE_WIDTH / 2
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - _BADGE_WIDTH
    return moved
