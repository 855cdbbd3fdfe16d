"""Normalisations. Those that take statistics over channels keep them: fewer channels have other statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import BATCH_NORM
from edgekit.passes.prune.flow import Family, Flow, named, set_named
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_WHY = "its normalisation has no channels of its own"


def _per_channel(flow: Flow, node: fx.Node) -> Value:
    """Batch and instance norm: each channel by itself. Scale and shift make it zero; without them, its mean stays."""
    call = named(node)
    value = flow.value(call["input"])
    channels = value[1]
    affine = False
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(call[name], fx.Node):
            flow.same(channels, flow.parameter(call[name], "along")[0], node, _WHY)
            affine = affine or name == "weight"
    zero = affine or (not isinstance(call["running_mean"], fx.Node) and channels is not None and channels.zero)
    out = None if channels is None else Axis(labels=channels.labels, zero=zero)
    return (value[0], out, *value[2:])


def _group_norm(flow: Flow, node: fx.Node) -> Value:
    """Whole groups go. One group, as a layer norm, is statistics over everything."""
    call = named(node)
    value = flow.value(call["input"])
    channels, groups = value[1], call["num_groups"]
    for name in ("weight", "bias"):
        if isinstance(call[name], fx.Node):
            flow.same(channels, flow.parameter(call[name], "along")[0], node, _WHY)
    if channels is None:
        return value
    if groups < 2 or not channels.zero:
        flow.freeze(channels, node, "its statistics are taken over all channels")
        return value
    blocks = channels.labels.reshape(groups, -1)
    for place in range(blocks.shape[1] - 1):
        flow.labels.unify(blocks[:, place], blocks[:, place + 1])
    flow.keep_some(channels)
    return value


def _fewer_groups(cut: Any, node: fx.Node) -> None:
    call = named(node)
    before, after = cut.count(cut.flow.value(call["input"])[1])
    if after < before:
        set_named(node, "num_groups", call["num_groups"] * after // before)


def _over_channels(flow: Flow, node: fx.Node) -> Value:
    call = named(node)
    value = flow.value(call["input"])
    for back in range(1, len(call["normalized_shape"]) + 1):
        flow.freeze(value[-back], node, "its statistics are taken over all channels")
        for name in ("weight", "bias"):
            if isinstance(call.get(name), fx.Node):
                flow.freeze_value(flow.value(call[name]), node, "its statistics are taken over all channels")
    return tuple(None if axis is None else Axis(labels=axis.labels, zero=False) for axis in value)


FAMILIES = (
    Family(
        title="batch and instance norm",
        operators=(*BATCH_NORM, _A.instance_norm.default),
        rule=_per_channel,
    ),
    Family(
        title="group norm (whole groups)", operators=(_A.group_norm.default,), rule=_group_norm, repair=_fewer_groups
    ),
    Family(
        title="layer and RMS norm (their channels stay)",
        operators=(_A.layer_norm.default, _A.rms_norm.default),
        rule=_over_channels,
    ),
)
