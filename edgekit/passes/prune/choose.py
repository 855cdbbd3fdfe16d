"""Which units or blocks go, until the arithmetic that is left meets what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekit.passes.prune.arithmetic import Arithmetic
from edgekit.passes.prune.blocks import Block, BlockPrices
from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.units import Group, Unit

__all__ = [
    "Importance",
    "choose_blocks",
    "choose_global",
    "choose_uniform",
    "keep_steps",
    "levels",
    "never_empty",
    "ranked",
]

Importance = Mapping[int, float]
"""A unit's representative to its importance; only the order inside a group, and for global allocation between groups,
counts."""

_SEARCH_STEPS = 40
# No layer loses more than this under global allocation: a layer of two channels is a bottleneck whatever its weights.
_MOST = 0.9


def keep_steps(group: Group, align: int) -> int:
    """Returns in how many units at once a group's width may change, so that widths stay multiples of ``align``."""
    return max(1, align // math.gcd(align, group.width))


def choose_uniform(
    flow: Flow, groups: Sequence[Group], importance: Importance, *, keep: float, align: int
) -> tuple[Unit, ...]:
    """Takes the same share from every group, least important units first, until at most ``keep`` of the MACs is left.

    Args:
        flow: The labels.
        groups: What can go.
        importance: Of each unit.
        keep: Share of the multiply-accumulates to keep, in 0..1.
        align: Kept channels are multiples of this.

    Returns:
        The units to remove: the smallest share that is enough, or the largest possible if none is.
    """
    orders = [ranked(group, importance) for group in groups]

    def taken(share: float) -> list[Unit]:
        return [
            unit
            for group, units in zip(groups, orders, strict=True)
            for unit in units[: _removable(group, math.ceil(share * len(units)), align)]
        ]

    return _search(flow, taken, keep=keep)


def choose_global(
    flow: Flow, groups: Sequence[Group], importance: Importance, *, keep: float, align: int
) -> tuple[Unit, ...]:
    """Takes the units below one bound of importance, over all groups at once; see :func:`choose_uniform`."""
    orders = [ranked(group, importance) for group in groups]
    values = np.sort(np.array([importance[unit.root] for units in orders for unit in units]))

    def taken(share: float) -> list[Unit]:
        bound = values[min(len(values) - 1, int(share * len(values)))] if len(values) else 0.0
        result: list[Unit] = []
        for group, units in zip(groups, orders, strict=True):
            count = sum(importance[unit.root] < bound for unit in units)
            result += units[: _removable(group, min(count, int(_MOST * len(units))), align)]
        return result

    return _search(flow, taken, keep=keep)


def choose_blocks(flow: Flow, prices: BlockPrices, *, keep: float) -> tuple[Block, ...]:
    """Removes, one after the other, the block whose removal costs least per multiply-accumulate saved.

    Args:
        flow: The labels.
        prices: Of the blocks that can leave.
        keep: Share of the multiply-accumulates to keep.

    Returns:
        The blocks to remove; all of them if that is not enough.
    """
    arithmetic = Arithmetic(flow)

    def left(*more: Block) -> float:
        return arithmetic.left((), (*prices.removed, *more))

    while left() > keep * arithmetic.total:
        found = prices.cheapest(lambda block: left() - left(block))
        if found is None:
            break
        prices.remove(found[1])
    return prices.removed


def ranked(group: Group, importance: Importance) -> list[Unit]:
    """Returns the units of a group, the least important first."""
    return sorted(group.units, key=lambda unit: importance[unit.root])


def levels(group: Group, align: int) -> tuple[int, ...]:
    """Returns how many units may go so that what is left is aligned: from 0 to the most that can."""
    counts = {_removable(group, wanted, align) for wanted in range(len(group.units) + 1)}
    return tuple(sorted(counts))


def _removable(group: Group, wanted: int, align: int) -> int:
    """Returns how many units go so that what is left is aligned and not empty: at most ``wanted``.

    A group that is not wider than one step stays whole: it would not run faster.
    """
    units, step = len(group.units), keep_steps(group, align)
    fixed = group.size // group.width - units  # rows of the weight that cannot go
    left = units - min(wanted, units)
    aligned = math.ceil((left + fixed) / step) * step - fixed
    return max(0, units - max(aligned, 0 if fixed > 0 else min(step, units)))


def _search(flow: Flow, taken: Callable[[float], list[Unit]], *, keep: float) -> tuple[Unit, ...]:
    """Finds the smallest share whose removal leaves at most ``keep`` of the arithmetic."""
    arithmetic, dimensions = Arithmetic(flow), _dimensions(flow)
    aim = keep * arithmetic.total
    low, high = 0.0, 1.0
    best = _never_empty(dimensions, taken(1.0))
    for _ in range(_SEARCH_STEPS):
        share = (low + high) / 2
        units = _never_empty(dimensions, taken(share))
        if arithmetic.left([unit.root for unit in units]) <= aim:
            high, best = share, units
        else:
            low = share
    return best


def never_empty(flow: Flow, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Returns the units without those whose removal would leave a dimension empty; the last of each comes back."""
    return _never_empty(_dimensions(flow), units)


def _dimensions(flow: Flow) -> tuple[frozenset[int], ...]:
    """The classes on each dimension that could vanish; those with a class that stays cannot."""
    axes = [axis.labels for value in flow.parameters.values() for axis in value if axis is not None]
    classes = dict.fromkeys(frozenset(flow.labels.find(labels).tolist()) for labels in (*axes, *flow.pieces))
    return tuple(item for item in classes if item and all(flow.labels.reason(root) is None for root in item))


def _never_empty(dimensions: Sequence[frozenset[int]], units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Gives back the last chosen (most important) unit of any dimension that would vanish."""
    gone = {unit.root: position for position, unit in enumerate(units)}
    for roots in dimensions:
        if all(root in gone for root in roots):
            del gone[max(roots, key=lambda root: gone[root])]
    return tuple(unit for unit in units if unit.root in gone)
