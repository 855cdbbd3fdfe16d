"""Operators that join tensors, and that take pieces of them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekit.passes.aten import read_tensor
from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, Frozen, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_WHY = "it is joined with something that has no channels of its own"
_SPLITS = (_A.split.Tensor, _A.split_with_sizes.default, _A.split.sizes, _A.chunk.default, _A.tensor_split.sections)


def _cat(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    parts = call["tensors"]
    values = [flow.value(part) for part in parts]
    rank = len(values[0])
    along = call["dim"] % rank
    result: list[Axis | None] = []
    for place in range(rank):
        axes = [value[place] for value in values]
        if place != along:
            result.append(_side_by_side(flow, node, axes))
        elif all(axis is None for axis in axes):
            result.append(None)
        else:
            labels = [
                _stays(flow, node, flow.shape(part)[place]) if axis is None else axis.labels
                for part, axis in zip(parts, axes, strict=True)
            ]
            zero = all(axis is None or axis.zero for axis in axes)
            result.append(Axis(labels=np.concatenate(labels), zero=zero))
    return tuple(result)


def _side_by_side(flow: Flow, node: fx.Node, axes: Sequence[Axis | None]) -> Axis | None:
    """Dimensions along which nothing is joined are the same in all parts."""
    for other in axes[1:]:
        flow.same(axes[0], other, node, _WHY)
    known = [axis for axis in axes if axis is not None]
    if len(known) < len(axes):
        return None
    return Axis(labels=known[0].labels, zero=all(axis.zero for axis in known))


def _stays(flow: Flow, node: fx.Node, size: int) -> Any:
    labels = flow.labels.fresh(size)
    flow.labels.freeze(labels, Frozen(where=node.name, why="it is not made by a layer"))
    return labels


def _stack(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    values = [flow.value(part) for part in call["tensors"]]
    result = [_side_by_side(flow, node, axes) for axes in zip(*values, strict=True)]
    result.insert(call["dim"] % (len(result) + 1), None)
    return tuple(result)


def _split(flow: Flow, node: fx.Node) -> list[Value]:
    value = flow.value(node.args[0])
    along = named(node)["dim"] % len(value)
    axis = value[along]
    pieces: list[Value] = []
    start = 0
    sizes = flow.sizes[node]
    for piece in sizes if isinstance(sizes, list) else []:
        size = piece[along] if isinstance(piece, tuple) else 0
        mine = None if axis is None else Axis(labels=axis.labels[start : start + size], zero=axis.zero)
        flow.keep_some(mine)
        pieces.append((*value[:along], mine, *value[along + 1 :]))
        start += size
    return pieces


def _split_by_what_is_left(cut: Any, node: fx.Node) -> None:
    source = node.args[0]
    along = named(node)["dim"] % len(cut.flow.value(source))
    if not cut.shrinks(cut.flow.value(source)[along]):
        return
    sizes = [cut.left(piece[along].labels) for piece in cut.flow.values[node]]
    node.target = _A.split_with_sizes.default
    node.args, node.kwargs = (source, sizes, along), {}


def _piece(flow: Flow, node: fx.Node) -> Value | list[Value] | None:
    whole, index = node.args[0], node.args[1]
    source = flow.values.get(whole) if isinstance(whole, fx.Node) else None
    return source[index] if isinstance(source, list) and isinstance(index, int) else None


def _unbind(flow: Flow, node: fx.Node) -> list[Value]:
    value = flow.value(node.args[0])
    along = named(node)["dim"] % len(value)
    flow.freeze(value[along], node, "its parts are taken one by one")
    rest = (*value[:along], *value[along + 1 :])
    return [rest for _ in range(flow.shape(node.args[0])[along])]


def _select(flow: Flow, node: fx.Node) -> Value:
    value = flow.value(node.args[0])
    along = named(node)["dim"] % len(value)
    flow.freeze(value[along], node, "one of its parts is taken")
    return (*value[:along], *value[along + 1 :])


def _slice(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value = flow.value(call["self"])
    along = call["dim"] % len(value)
    axis = value[along]
    if axis is None:
        return value
    if call["step"] != 1 or not all(isinstance(call[name], (int, type(None))) for name in ("start", "end")):
        flow.freeze(axis, node, "a part of it is taken that pruning cannot follow")
        return (*value[:along], None, *value[along + 1 :])
    part = Axis(labels=axis.labels[slice(call["start"], call["end"])], zero=axis.zero)
    flow.keep_some(part)
    return (*value[:along], part, *value[along + 1 :])


def _slice_what_is_left(cut: Any, node: fx.Node) -> None:
    call = named(node)
    value = cut.flow.value(call["self"])
    along = call["dim"] % len(value)
    axis = value[along]
    if not cut.shrinks(axis):
        return
    start, end, _ = slice(call["start"], call["end"]).indices(len(axis.labels))
    node.args = (call["self"], along, cut.left(axis.labels[:start]), cut.left(axis.labels[:end]))
    node.kwargs = {}


def _index_select(flow: Flow, node: fx.Node) -> Value | None:
    call = named(node)
    value = flow.value(call["self"])
    along = call["dim"] % len(value)
    axis, index = value[along], call["index"]
    if axis is None:
        return value
    if not isinstance(index, fx.Node) or index.op != "get_attr" or len(index.users) != 1:
        flow.freeze(axis, node, "its parts are taken by a computed index")
        return (*value[:along], None, *value[along + 1 :])
    order = read_tensor(flow.program.graph, index).numpy()
    part = Axis(labels=axis.labels[order], zero=axis.zero)
    flow.keep_some(part)
    return (*value[:along], part, *value[along + 1 :])


def _index_what_is_left(cut: Any, node: fx.Node) -> None:
    call = named(node)
    value = cut.flow.value(call["self"])
    axis = value[call["dim"] % len(value)]
    if not cut.shrinks(axis):
        return
    alive = cut.alive(axis.labels)
    moved = np.cumsum(alive) - 1
    order = cut.tensor(call["index"]).numpy()
    cut.replace_buffer(call["index"], torch.from_numpy(moved[order[alive[order]]]))


def _roll(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value = list(flow.value(call["self"]))
    for place in [dim % len(value) for dim in call["dims"]] if call["dims"] else range(len(value)):
        flow.freeze(value[place], node, "it is rolled")
        value[place] = None
    return tuple(value)


def _flip(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value = list(flow.value(call["self"]))
    for place in [dim % len(value) for dim in call["dims"]]:
        axis = value[place]
        value[place] = None if axis is None else Axis(labels=axis.labels[::-1].copy(), zero=axis.zero)
    return tuple(value)


def _repeat(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value, times = flow.value(call["self"]), call["repeats"]
    padded: list[Axis | None] = [*(None for _ in range(len(times) - len(value))), *value]
    for place, count in enumerate(times):
        axis = padded[place]
        if axis is None or count == 1:
            continue
        if isinstance(count, int):
            padded[place] = Axis(labels=np.tile(axis.labels, count), zero=axis.zero)
        else:
            flow.freeze(axis, node, "it is repeated a computed number of times")
            padded[place] = None
    return tuple(padded)


FAMILIES = (
    Family(title="concatenation", operators=(_A.cat.default, _A.concat.default), rule=_cat),
    Family(title="stacking", operators=(_A.stack.default,), rule=_stack),
    Family(title="chunk and split", operators=_SPLITS, rule=_split, repair=_split_by_what_is_left),
    Family(title="one of several results", operators=(operator.getitem,), rule=_piece),
    Family(title="unbind", operators=(_A.unbind.int,), rule=_unbind),
    Family(title="select", operators=(_A.select.int,), rule=_select),
    Family(title="slices", operators=(_A.slice.Tensor,), rule=_slice, repair=_slice_what_is_left),
    Family(
        title="a fixed order or choice of channels",
        operators=(_A.index_select.default,),
        rule=_index_select,
        repair=_index_what_is_left,
    ),
    Family(title="roll", operators=(_A.roll.default,), rule=_roll),
    Family(title="flip", operators=(_A.flip.default,), rule=_flip),
    Family(title="repeat", operators=(_A.repeat.default,), rule=_repeat),
)
