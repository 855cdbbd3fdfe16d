"""What can go: units of labels that leave together, and groups of units that are one layer's width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.labels import Frozen, IntArray

__all__ = ["Group", "Kept", "Part", "Unit", "find_groups", "find_kept"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The slices of one parameter that belong to a unit.

    Attributes:
        name: The parameter, as :attr:`Flow.parameters` has it.
        dim: Its dimension.
        index: (n,) places on that dimension.
        made: Whether the unit's values are made there (rows of a weight, a bias, a scale), so that zero there is zero
            everywhere; the other slices take what is made.
        weight: Whether it is the rows of a weight whose sum makes the values: what importance is read from.
    """

    name: str
    dim: int
    index: IntArray
    made: bool
    weight: bool


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest thing that can be removed: a channel with all that hangs on it, in whatever layers."""

    root: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units that share the rows of a weight, so that how many are left is one layer's width (or several, tied).

    Attributes:
        layers: Names of the weights whose rows they are.
        units: In the order of the rows.
        width: Rows of the widest of these weights that one unit takes: channels leave in steps of it.
        size: Rows of that weight.
    """

    layers: tuple[str, ...]
    units: tuple[Unit, ...]
    width: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A layer whose channels cannot go, and why."""

    layer: str
    reason: Frozen


def find_groups(flow: Flow) -> tuple[Group, ...]:
    """Lists what can go, in the order of the graph.

    A unit is a class that is not frozen, that a weight makes and that something takes. A class that only makes would
    save nothing elsewhere, and one that only takes is made by nothing that could be removed.
    """
    parts = _parts(flow)
    consumed = set(flow.labels.find(np.concatenate(flow.consumed)).tolist()) if flow.consumed else set()
    units = {
        root: Unit(root=root, parts=tuple(items))
        for root, items in parts.items()
        if flow.labels.reason(root) is None
        and any(item.weight for item in items)
        and (root in consumed or any(not item.made for item in items))
    }
    leader: dict[int, int] = {root: root for root in units}

    def lead(root: int) -> int:
        while leader[root] != root:
            leader[root] = leader[leader[root]]
            root = leader[root]
        return root

    rows: dict[tuple[str, int], list[int]] = {}
    for root, unit in units.items():
        for item in unit.parts:
            if item.weight:
                rows.setdefault((item.name, item.dim), []).append(root)
    for members in rows.values():
        for root in members[1:]:
            leader[lead(root)] = lead(members[0])
    gathered: dict[int, list[Unit]] = {}
    for root, unit in units.items():
        gathered.setdefault(lead(root), []).append(unit)
    return tuple(_group(flow, members) for members in gathered.values())


def find_kept(flow: Flow) -> tuple[Kept, ...]:
    """Lists the weights none of whose rows can go."""
    kept = []
    for (name, dim), roles in flow.roles.items():
        axis = flow.parameters[name][dim]
        if "out" not in roles or axis is None:
            continue
        reasons = [flow.labels.reason(root) for root in np.unique(flow.labels.find(axis.labels)).tolist()]
        if reasons and all(reason is not None for reason in reasons) and reasons[0] is not None:
            kept.append(Kept(layer=name.removesuffix(".weight"), reason=reasons[0]))
    return tuple(kept)


def _parts(flow: Flow) -> dict[int, list[Part]]:
    parts: dict[int, list[Part]] = {}
    for name, value in flow.parameters.items():
        for dim, axis in enumerate(value):
            if axis is None:
                continue
            roles = flow.roles.get((name, dim), set())
            roots = flow.labels.find(axis.labels)
            order = np.argsort(roots, kind="stable")
            classes, starts = np.unique(roots[order], return_index=True)
            for root, index in zip(classes.tolist(), np.split(order, starts[1:]), strict=True):
                part = Part(name=name, dim=dim, index=index, made=roles != {"in"}, weight="out" in roles)
                parts.setdefault(root, []).append(part)
    return parts


def _group(flow: Flow, units: list[Unit]) -> Group:
    layers: dict[str, int] = {}
    width, size = 1, 0
    for unit in units:
        for item in unit.parts:
            if item.weight:
                axis = flow.parameters[item.name][item.dim]
                rows = 0 if axis is None else len(axis.labels)
                layers.setdefault(item.name.removesuffix(".weight"), rows)
                if rows > size:
                    size = rows
                width = max(width, len(item.index))
    return Group(layers=tuple(layers), units=tuple(units), width=width, size=size)
