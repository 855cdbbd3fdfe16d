"""Linear layers, products of matrices, and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import ATTENTION, LINEAR
from edgekit.passes.prune.flow import Family, Flow, named, set_named
from edgekit.passes.prune.labels import Axis, Value, counted

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_TOKENS = "it is a place in a sequence"
_BATCH = "it is a part of a batch of matrices that has no channels of its own"


def _linear(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value = flow.value(call["input"])
    weight = flow.parameter(call["weight"], "out", "in")
    flow.sum_over(value[-1], weight[1], node)
    if call["bias"] is not None:
        flow.same(weight[0], flow.parameter(call["bias"], "along")[0], node, "its bias has no channels of its own")
    sizes = flow.shape(call["weight"])
    flow.spend(node, flow.per_image(node) // sizes[0], counted(weight[0], sizes[0]), counted(weight[1], sizes[1]))
    return (*value[:-1], weight[0])


def _matmul(flow: Flow, node: fx.Node) -> Value | None:
    left, right = node.args[0], node.args[1]
    first, second = flow.value(left), flow.value(right)
    if len(first) < 2 or len(second) < 2:
        return None
    one, other = first[-1], second[-2]
    # A place where either is zero adds nothing.
    if one is not None and other is not None and not (one.zero or other.zero):
        flow.freeze(one, node, "what it sums over is not zero where a channel is gone")
    flow.same(one, other, node, "what it sums over has no channels of its own")
    if one is not None:
        flow.consumed.append(one.labels)
    rank = max(len(first), len(second))
    batch: list[Axis | None] = []
    for back in range(rank, 2, -1):
        mine, its = _at(first, back), _at(second, back)
        flow.same(mine, its, node, _BATCH)
        both = mine is not None and its is not None
        batch.append(Axis(labels=mine.labels, zero=mine.zero or its.zero) if both and mine and its else None)
    for axis in batch:
        flow.keep_some(axis)
    inner = flow.shape(left)[-1]
    labelled = [*batch, first[-2], second[-1], one]
    factor = float(flow.per_image(node) * inner)
    for axis in labelled:
        factor /= 1 if axis is None else len(axis.labels)
    flow.spend(node, factor, *[axis for axis in labelled if axis is not None])
    return (*batch, first[-2], second[-1])


def _attention(flow: Flow, node: fx.Node) -> Value:
    """Scaled dot-product attention: (..., heads, tokens, channels) each."""
    call = named(node)
    query, key, value = (flow.value(call[name]) for name in ("query", "key", "value"))
    for axis in (query[-2], key[-2], value[-2]):
        flow.freeze(axis, node, _TOKENS)
    flow.same(query[-1], key[-1], node, "its queries and keys have no channels of their own")
    if query[-1] is not None:
        flow.consumed.append(query[-1].labels)
        if not query[-1].zero and key[-1] is not None and not key[-1].zero:
            flow.freeze(query[-1], node, "its queries and keys are not zero where a channel is gone")
    heads = query[-3] if len(query) > 3 else None
    if len(query) > 3:
        flow.same(heads, key[-3], node, _BATCH)
        flow.same(heads, value[-3], node, _BATCH)
        flow.keep_some(heads)
        if heads is not None and not (value[-3] is not None and value[-3].zero):
            flow.freeze(heads, node, "its values are not zero where a head is gone")
    mask = call.get("attn_mask")
    if flow.is_tensor(mask):
        _mask(flow, node, flow.value(mask), flow.shape(mask), heads)
    flow.keep_some(value[-1])
    flow.keep_some(query[-1])
    sizes, keys = flow.shape(call["query"]), flow.shape(call["key"])
    number = len(heads.labels) if heads is not None else 1
    pairs = float(flow.per_image(call["query"]) // sizes[-1] * keys[-2]) / number
    flow.spend(node, pairs, heads, counted(query[-1], sizes[-1]))
    flow.spend(node, pairs, heads, counted(value[-1], flow.shape(call["value"])[-1]))
    return (*query[:-3], heads, None, value[-1]) if len(query) > 3 else (*query[:-1], value[-1])


def _mask(flow: Flow, node: fx.Node, mask: Value, sizes: tuple[int, ...], heads: Axis | None) -> None:
    for back, axis in enumerate(reversed(mask), start=1):
        if back == 3 and sizes[-3] > 1:
            flow.same(axis, heads, node, "its mask has no heads of its own")
        else:
            flow.freeze(axis, node, _TOKENS)


def _at(value: Value, back: int) -> Axis | None:
    return value[-back] if len(value) >= back else None


def _write_scale(cut: Any, node: fx.Node) -> None:
    """The default scale is the root of the number of channels, which pruning changes: write down what it was."""
    call = named(node)
    if call.get("scale") is None and cut.shrinks(cut.flow.value(call["query"])[-1]):
        set_named(node, "scale", cut.flow.shape(call["query"])[-1] ** -0.5)


FAMILIES = (
    Family(title="linear layers", operators=LINEAR, rule=_linear),
    Family(title="products of matrices", operators=(_A.matmul.default, _A.bmm.default, _A.mm.default), rule=_matmul),
    Family(
        title="scaled dot-product attention (heads, channels of a head)",
        operators=ATTENTION,
        rule=_attention,
        repair=_write_scale,
    ),
)
