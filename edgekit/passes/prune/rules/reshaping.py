"""Reshapes: which factor of a new shape carries the labels of the old one."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekit.passes.aten import ATTENTION, MATMUL
from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, IntArray, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_WHY = "a reshape mixes it with other dimensions"
# What may stand between the reshape that makes heads and the attention.
_ON_THE_WAY = (
    _A.permute.default,
    _A.transpose.int,
    _A.unbind.int,
    _A.select.int,
    operator.getitem,
    _A.mul.Tensor,
    _A.mul.Scalar,
    _A.div.Tensor,
    _A.contiguous.default,
)
_MAX_STEPS = 12


def _reshape(flow: Flow, node: fx.Node) -> Value:
    source: Any = node.args[0]
    value = flow.value(source)
    result: list[Axis | None] = [None] * len(flow.shape(node))
    for olds, news in _blocks(flow.shape(source), flow.shape(node)):
        _block(flow, node, value, olds, news, result)
    asked = named(node).get("shape", named(node).get("size"))
    if asked is not None:
        for place, size in enumerate(asked):
            if not isinstance(size, int):
                flow.freeze(result[place], node, "it is merged with a batch of any size")
                result[place] = None
    return tuple(result)


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Pairs the shortest runs of dimensions with equal products.

    >>> _blocks((1009, 8, 4, 4), (1009, 128))
    [([0], [0]), ([1, 2, 3], [1])]
    """
    blocks = []
    i = j = 0
    while i < len(before) or j < len(after):
        olds, news = [], []
        if i < len(before):
            olds.append(i)
            i += 1
        if j < len(after):
            news.append(j)
            j += 1
        while True:
            left = math.prod(before[k] for k in olds)
            right = math.prod(after[k] for k in news)
            if left == right:
                break
            if left < right:
                olds.append(i)
                i += 1
            else:
                news.append(j)
                j += 1
        blocks.append((olds, news))
    return blocks


def _block(
    flow: Flow, node: fx.Node, value: Value, olds: list[int], news: list[int], result: list[Axis | None]
) -> None:
    source: Any = node.args[0]
    before, after = flow.shape(source), flow.shape(node)
    labelled = [(place, axis) for place in olds if (axis := value[place]) is not None and before[place] > 1]
    if not labelled:
        return
    # One dimension decides; the others that are merged with it stay whole.
    labelled.sort(key=lambda item: _classes(flow, item[1]), reverse=True)
    for _, axis in labelled[1:]:
        flow.freeze(axis, node, _WHY)
    place, axis = labelled[0]
    wide = axis.labels.reshape([-1 if old == place else 1 for old in olds])
    grid: IntArray = np.broadcast_to(wide, [before[old] for old in olds]).reshape([after[new] for new in news])
    large = [position for position, new in enumerate(news) if after[new] > 1]
    if len(large) == 1:
        result[news[large[0]]] = Axis(labels=grid.reshape(-1).copy(), zero=axis.zero)
        return
    chosen = _factor(flow, node, grid, news, large)
    lines = np.moveaxis(grid, chosen, 0).reshape(grid.shape[chosen], -1)
    for other in range(1, lines.shape[1]):
        flow.labels.unify(lines[:, 0], lines[:, other])
    result[news[chosen]] = Axis(labels=lines[:, 0].copy(), zero=axis.zero)


def _classes(flow: Flow, axis: Axis) -> int:
    roots = np.unique(flow.labels.find(axis.labels)).tolist()
    return sum(flow.labels.reason(root) is None for root in roots)


def _factor(flow: Flow, node: fx.Node, grid: IntArray, news: list[int], large: list[int]) -> int:
    """Chooses the factor that carries the labels.

    1. One along which alone they change already.
    2. The heads, where the result goes into attention: whole heads go.
    3. The largest, the last of equals: for channels in groups, channels go.
    """
    roots = flow.labels.find(grid)
    for position in large:
        lines = np.moveaxis(roots, position, 0).reshape(roots.shape[position], -1)
        if bool((lines == lines[:, :1]).all()):
            return position
    heads = _heads(flow, node)
    if heads is not None and heads in news and news.index(heads) in large:
        return news.index(heads)
    return max(large, key=lambda position: (grid.shape[position], position))


def _heads(flow: Flow, node: fx.Node) -> int | None:
    """Follows a value to the attention that takes it; returns which dimension is the heads' there, the third last."""
    order = list(range(len(flow.shape(node))))
    current = node
    for _ in range(_MAX_STEPS):
        user = next((item for item in current.users if item.op == "call_function"), None)
        if user is None:
            return None
        if user.target in ATTENTION or user.target in MATMUL:
            return order[-3] if len(order) > 3 else None
        if user.target not in _ON_THE_WAY:
            return None
        if user.target is _A.permute.default:
            order = [order[place] for place in user.args[1]]  # type: ignore[union-attr,index]
        elif user.target is _A.transpose.int:
            one, other = (int(item) % len(order) for item in user.args[1:3])  # type: ignore[arg-type]
            order[one], order[other] = order[other], order[one]
        elif user.target in (_A.unbind.int, _A.select.int):
            order.pop(named(user)["dim"] % len(order))
        current = user
    return None


def _new_sizes(cut: Any, node: fx.Node) -> None:
    """The new size of a dimension is the number of labels that are left on it."""
    cut.resize(node, "shape" if node.target is _A.reshape.default else "size")


def _new_factors(cut: Any, node: fx.Node) -> None:
    source: Any = node.args[0]
    cut.resize(node, "sizes", first=named(node)["dim"] % len(cut.flow.value(source)))


FAMILIES = (
    Family(
        title="reshape and view (heads, groups, flattened images)",
        operators=(_A.reshape.default, _A.view.default, _A._unsafe_view.default),
        rule=_reshape,
        repair=_new_sizes,
    ),
    Family(title="flatten", operators=(_A.flatten.using_ints,), rule=_reshape),
    Family(title="unflatten", operators=(_A.unflatten.int,), rule=_reshape, repair=_new_factors),
)
