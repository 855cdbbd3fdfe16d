"""Convolutions, dense, grouped and depthwise, and their transposes."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from edgekit.passes.aten import CONV, CONV_TRANSPOSE
from edgekit.passes.prune.flow import Family, Flow, named, set_named
from edgekit.passes.prune.labels import Axis, Value, counted

__all__ = ["FAMILIES"]

# With fewer groups, the same share of each group goes; with more, whole groups go. Two or three groups are branches.
_WHOLE_GROUPS_FROM = 4
_NO_CHANNELS = "its input has no channels of its own"


def _convolution(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    groups = call["groups"]
    kernel = flow.shape(call["weight"])
    out_size, in_size = kernel[0], kernel[1]
    dense = groups == 1 or in_size > 1
    weight = flow.parameter(call["weight"], "out" if dense else "along", "in")
    for axis in weight[2:]:
        flow.freeze(axis, node, "it is a place in a kernel")
    channels = flow.value(call["input"])[-len(kernel) + 1]
    out = weight[0]
    if call["bias"] is not None:
        flow.same(out, flow.parameter(call["bias"], "along")[0], node, "its bias has no channels of its own")
    if groups == 1:
        flow.sum_over(channels, weight[1], node)
    elif channels is None or out is None or not channels.zero:
        for axis in (channels, out, weight[1]):
            flow.freeze(axis, node, _NO_CHANNELS if channels is None else "its input is not zero where a channel is")
    elif groups >= _WHOLE_GROUPS_FROM or in_size == 1:
        flow.freeze(weight[1], node, "whole groups go, not channels inside them")
        for group in range(groups):
            mine = channels.labels[group * in_size : (group + 1) * in_size]
            made = out.labels[group * out_size // groups : (group + 1) * out_size // groups]
            block = np.concatenate([mine, made])
            flow.labels.unify(block[:-1], block[1:])
    else:
        _same_share_of_each_group(flow, node, channels, weight, groups)
    places = flow.per_image(node) // out_size * int(np.prod(kernel[2:]))
    flow.spend(node, places, counted(out, out_size), counted(weight[1], in_size))
    rank = len(flow.shape(node))
    return tuple(out if place == rank - len(kernel) + 1 else None for place in range(rank))


def _same_share_of_each_group(flow: Flow, node: fx.Node, channels: Axis, weight: Value, groups: int) -> None:
    out, inside = weight[0], weight[1]
    if inside is None or out is None:
        flow.freeze(channels, node, _NO_CHANNELS)
        return
    size, made = len(inside.labels), len(out.labels) // groups
    for group in range(groups):
        flow.labels.unify(channels.labels[group * size : (group + 1) * size], inside.labels)
        if group:
            flow.labels.unify(out.labels[:made], out.labels[group * made : (group + 1) * made])


def _transposed(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    groups = call["groups"]
    kernel = flow.shape(call["weight"])
    depthwise = groups > 1 and kernel[1] == 1
    weight = flow.parameter(call["weight"], "along" if depthwise else "in", "out")
    for axis in weight[2:]:
        flow.freeze(axis, node, "it is a place in a kernel")
    channels = flow.value(call["input"])[-len(kernel) + 1]
    flow.sum_over(channels, weight[0], node)
    out = weight[1] if groups == 1 else weight[0] if depthwise else None
    if groups > 1 and not depthwise:
        for axis in weight:
            flow.freeze(axis, node, "it is a transposed convolution in groups")
    if call["bias"] is not None:
        flow.same(out, flow.parameter(call["bias"], "along")[0], node, "its bias has no channels of its own")
    places = flow.per_image(call["input"]) // kernel[0] * int(np.prod(kernel[2:]))
    flow.spend(node, places, counted(weight[0], kernel[0]), counted(weight[1], kernel[1]))
    rank = len(flow.shape(node))
    return tuple(out if place == rank - len(kernel) + 1 else None for place in range(rank))


def _fewer_groups(cut: Any, node: fx.Node) -> None:
    """Whole groups went: there are as many as input channels are left for."""
    call = named(node)
    if call["groups"] == 1:
        return
    rank = len(cut.flow.shape(call["weight"]))
    before, after = cut.count(cut.flow.value(call["input"])[-rank + 1])
    inside = cut.flow.value(call["weight"])[1] if node.target not in CONV_TRANSPOSE else None
    if after == before or cut.shrinks(inside):
        return
    set_named(node, "groups", call["groups"] * after // before)


FAMILIES = (
    Family(
        title="convolutions (dense, grouped, depthwise; 1D to 3D)",
        operators=CONV,
        rule=_convolution,
        repair=_fewer_groups,
    ),
    Family(
        title="transposed convolutions (dense, depthwise)",
        operators=CONV_TRANSPOSE,
        rule=_transposed,
        repair=_fewer_groups,
    ),
)
