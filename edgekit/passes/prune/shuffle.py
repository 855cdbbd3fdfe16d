"""Channel shuffles (reshape, transpose, reshape) as one fixed order of channels, and back.

As three operators a shuffle would tie every channel to the ones that it is mixed with. As an order it ties nothing, and
where what is left is a shuffle again it is written as one again: that is what engines know.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import clean, read_tensor, store_buffer
from edgekit.passes.prune.shapes import read_sizes
from edgekit.program import Program

__all__ = ["folded_shuffles", "unfolded_shuffles"]

_A = torch.ops.aten
_RESHAPES = (_A.reshape.default, _A.view.default)
_NAME = "channel_order_"


def unfolded_shuffles(program: Program) -> Program:
    """Returns a copy in which each channel shuffle is an ``index_select``."""
    copied = program.copied()
    graph = copied.graph
    sizes = dict(read_sizes(copied))
    count = 0
    for first in list(graph.graph.nodes):
        found = _shuffle(first, sizes)
        if found is None:
            continue
        last, groups, channels = found
        name = f"{_NAME}{count}"
        count += 1
        store_buffer(graph, name, torch.arange(channels).reshape(groups, -1).t().reshape(-1))
        with graph.graph.inserting_before(last):
            order = graph.graph.get_attr(name)
            chosen = graph.graph.call_function(_A.index_select.default, (first.args[0], 1, order))
        sizes[chosen] = sizes[last]
        last.replace_all_uses_with(chosen)
    clean(graph)
    return copied


def folded_shuffles(program: Program) -> Program:
    """Returns a copy in which the orders that this file made, and that are still shuffles, are written as such."""
    copied = program.copied()
    graph = copied.graph
    sizes = read_sizes(copied)
    for node in list(graph.graph.nodes):
        if node.target is not _A.index_select.default:
            continue
        source, _, index = node.args
        if not isinstance(index, fx.Node) or not str(index.target).startswith(_NAME):
            continue
        groups = _groups(read_tensor(graph, index))
        shape = sizes[node]
        if groups is None or not isinstance(shape, tuple):
            continue
        with graph.graph.inserting_before(node):
            batch: Any = shape[0]
            if program.dynamic_batch:
                batch = graph.graph.call_function(_A.sym_size.int, (source, 0))
            inner = [batch, groups, shape[1] // groups, *shape[2:]]
            split = graph.graph.call_function(_A.reshape.default, (source, inner))
            turned = graph.graph.call_function(_A.transpose.int, (split, 1, 2))
            whole = graph.graph.call_function(_A.reshape.default, (turned, [batch, *shape[1:]]))
        node.replace_all_uses_with(whole)
    clean(graph)
    return copied


def _shuffle(first: fx.Node, sizes: Any) -> tuple[fx.Node, int, int] | None:
    """Recognises (B, g * c, ...) -> (B, g, c, ...) -> (B, c, g, ...) -> (B, c * g, ...).

    Returns the last node, g, and the number of channels.
    """
    if first.target not in _RESHAPES or len(first.users) != 1:
        return None
    turned = next(iter(first.users))
    if turned.target is not _A.transpose.int or len(turned.users) != 1:
        return None
    rank = len(sizes[first])
    if sorted(int(dim) % rank for dim in turned.args[1:3]) != [1, 2]:  # type: ignore[arg-type]
        return None
    last = next(iter(turned.users))
    if last.target not in (*_RESHAPES, _A.flatten.using_ints):
        return None
    before, split, after = sizes[first.args[0]], sizes[first], sizes[last]
    if before != after or rank != len(before) + 1 or split[1] * split[2] != before[1] or split[3:] != before[2:]:
        return None
    return last, split[1], before[1]


def _groups(order: torch.Tensor) -> int | None:
    """Returns the groups of a shuffle, or None where an order is none.

    >>> _groups(torch.tensor([0, 3, 1, 4, 2, 5]))
    2
    """
    channels = len(order)
    for groups in range(2, channels):
        if channels % groups == 0 and torch.equal(order, torch.arange(channels).reshape(groups, -1).t().reshape(-1)):
            return groups
    return None
