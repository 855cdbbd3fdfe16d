"""Inverses of views: what a tensor becomes when one of its views is written."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgekit.errors import ModelError
from edgekit.frontend.aliasing import Facts

__all__ = ["scattered"]

aten = torch.ops.aten

_SCATTER = {
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.select.int: aten.select_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}
# Views that show every element exactly once: written back by giving the new value the parent's shape.
_RESHAPING = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
# The same elements in the same shape.
_IDENTITY = (
    aten.detach.default,
    aten.alias.default,
    aten.contiguous.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.to.other,
    aten.type_as.default,
    aten.expand.default,
    aten.view_as.default,
    aten.reshape_as.default,
    aten.lift_fresh.default,
)


def scattered(
    graph: fx.Graph,
    child: fx.Node,
    parent: fx.Node,
    facts: Facts,
    *,
    old: fx.Node,
    new: fx.Node,
    read: Callable[[fx.Node], fx.Node],
) -> fx.Node:
    """Emits the parent's value after its view ``child`` got the value ``new``.

    Args:
        graph: Where to emit.
        child: The view, in the original graph.
        parent: What it is a view of, in the original graph.
        facts: Of the original graph.
        old: The parent's value before the write, in ``graph``.
        new: The view's new value, in ``graph``.
        read: Original node to its current value in ``graph``, for sizes and indices.

    Raises:
        ModelError: The view has no known inverse (an overlapping ``expand``, ``as_strided``, ...).
    """
    target = child.target
    mine, its = facts.values[child], facts.values[parent]
    if target is operator.getitem:
        return _piece(graph, child, parent, facts, old=old, new=new)
    rest = fx.map_arg((child.args[1:], child.kwargs), read)
    if target in _SCATTER:
        return graph.call_function(_SCATTER[target], (old, new, *rest[0]), rest[1])
    if target in (aten.transpose.int, aten.swapaxes.default, aten.t.default):
        return graph.call_function(target, (new, *rest[0]))
    if target is aten.permute.default:
        order: Any = child.args[1]
        inverse = [[axis % mine.dim() for axis in order].index(axis) for axis in range(mine.dim())]
        return graph.call_function(aten.permute.default, (new, inverse))
    if target in _IDENTITY and mine.shape == its.shape:
        return new
    if target in _RESHAPING and mine.numel() == its.numel():
        return _reshaped(graph, old, new, parent, its)
    raise _refused(child)


def _reshaped(graph: fx.Graph, old: fx.Node, new: fx.Node, parent: fx.Node, its: Any) -> fx.Node:
    # A dynamic size is asked for, not written down: the export's own value knows which ones are.
    sizes = [
        size if isinstance(size, int) else graph.call_function(aten.sym_size.int, (old, axis))
        for axis, size in enumerate(_exported_shape(parent, its))
    ]
    return graph.call_function(aten.reshape.default, (new, sizes))


def _piece(graph: fx.Graph, child: fx.Node, parent: fx.Node, facts: Facts, *, old: fx.Node, new: fx.Node) -> fx.Node:
    """A write through one piece of ``chunk``, ``split`` or ``unbind``."""
    splitter, index = child.args[0], child.args[1]
    if not isinstance(splitter, fx.Node) or not isinstance(index, int):
        raise _refused(child)
    axis_at = 1 if splitter.target is aten.unbind.int else 2
    axis: Any = splitter.args[axis_at] if len(splitter.args) > axis_at else splitter.kwargs.get("dim", 0)
    pieces = facts.values[splitter]
    if splitter.target is aten.unbind.int:
        return graph.call_function(aten.select_scatter.default, (old, new, axis, index))
    splitters = (aten.chunk.default, aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default)
    # Pieces of a dynamic dimension have no fixed place.
    if splitter.target not in splitters or not isinstance(_exported_shape(parent, facts.values[parent])[axis], int):
        raise _refused(child)
    start = sum(piece.shape[axis] for piece in pieces[:index])
    return graph.call_function(aten.slice_scatter.default, (old, new, axis, start, start + pieces[index].shape[axis]))


def _exported_shape(node: fx.Node, its: Any) -> tuple[Any, ...]:
    exported = node.meta.get("val")
    return tuple(exported.shape if isinstance(exported, torch.Tensor) else its.shape)


def _refused(child: fx.Node) -> ModelError:
    return ModelError(
        f"the model writes through the view '{child.name}' ({child.target}), whose effect on the whole is unknown",
        hint="write it without the in-place operator, for example with torch.cat or torch.where",
    )
