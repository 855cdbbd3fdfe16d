"""Operators on pixels: pooling, resizing, padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow, named, set_named
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_PIXELS = "it is a place in an image"

_POOLING_1D = (_A.max_pool1d.default, _A.avg_pool1d.default, _A.adaptive_avg_pool1d.default)
_POOLING_2D = (
    _A.max_pool2d.default,
    _A.avg_pool2d.default,
    _A.adaptive_avg_pool2d.default,
    _A._adaptive_avg_pool2d.default,
    _A.adaptive_max_pool2d.default,
    _A.max_pool2d_with_indices.default,
    _A.upsample_nearest2d.vec,
    _A.upsample_nearest2d.default,
    _A.upsample_bilinear2d.vec,
    _A.upsample_bilinear2d.default,
    _A.upsample_bicubic2d.vec,
    _A.upsample_bicubic2d.default,
    _A._upsample_nearest_exact2d.vec,
    _A._upsample_bilinear2d_aa.vec,
)
_POOLING_3D = (_A.max_pool3d.default, _A.avg_pool3d.default, _A.adaptive_avg_pool3d.default)
_POOLING = {
    operator: rank for rank, family in enumerate((_POOLING_1D, _POOLING_2D, _POOLING_3D), 1) for operator in family
}
_PADDING = (_A.pad.default, _A.constant_pad_nd.default)


def _pooling(flow: Flow, node: fx.Node) -> Value | list[Value]:
    value = flow.value(node.args[0])
    kept = len(value) - _POOLING[node.target]  # type: ignore[index]
    for axis in value[kept:]:
        flow.freeze(axis, node, _PIXELS)
    result: Value = (*value[:kept], *(None for _ in value[kept:]))
    return [result, tuple(None for _ in result)] if isinstance(flow.sizes[node], list) else result


def _padding(flow: Flow, node: fx.Node) -> Value | None:
    """Padding pixels leaves channels alone; padding channels (a shortcut of wider networks) adds some that are zero."""
    call = named(node)
    value = list(flow.value(call["self"]))
    amounts = call["pad"]
    filling = call["value"]
    constant = call.get("mode", "constant") == "constant"
    zero = not constant or filling is None or filling == 0
    for pair in range(len(amounts) // 2):
        place = len(value) - 1 - pair
        before, after = amounts[2 * pair], amounts[2 * pair + 1]
        axis = value[place]
        if (before, after) == (0, 0):
            continue
        if axis is None or not constant or not zero or min(before, after) < 0:
            flow.freeze(axis, node, "it is padded")
            value[place] = None
            continue
        parts = [flow.labels.fresh(before), axis.labels, flow.labels.fresh(after)]
        value[place] = Axis(labels=np.concatenate(parts), zero=axis.zero)
    if not zero:
        return tuple(None if axis is None else Axis(labels=axis.labels, zero=False) for axis in value)
    return tuple(value)


def _fewer_padded(cut: Any, node: fx.Node) -> None:
    """The padded channels that are left, on either side."""
    call = named(node)
    amounts = list(call["pad"])
    result = cut.flow.value(node)
    for pair in range(len(amounts) // 2):
        axis = result[len(result) - 1 - pair]
        before, after = amounts[2 * pair], amounts[2 * pair + 1]
        if axis is None or (before, after) == (0, 0):
            continue
        # One side may lose all that it padded, unlike a dimension.
        amounts[2 * pair] = int(cut.alive(axis.labels[:before]).sum())
        amounts[2 * pair + 1] = int(cut.alive(axis.labels[len(axis.labels) - after :]).sum())
    set_named(node, "pad", amounts)


def _pixel_shuffle(flow: Flow, node: fx.Node) -> Value:
    """The channels that become one channel's pixels go together."""
    value = flow.value(node.args[0])
    channels = value[-3]
    square = named(node)["upscale_factor"] ** 2
    if channels is None:
        return value
    blocks = channels.labels.reshape(-1, square)
    for place in range(1, square):
        flow.labels.unify(blocks[:, 0], blocks[:, place])
    return (*value[:-3], Axis(labels=blocks[:, 0].copy(), zero=channels.zero), None, None)


def _pixel_unshuffle(flow: Flow, node: fx.Node) -> Value:
    value = flow.value(node.args[0])
    channels = value[-3]
    if channels is None:
        return value
    square = named(node)["downscale_factor"] ** 2
    return (*value[:-3], Axis(labels=np.repeat(channels.labels, square), zero=channels.zero), None, None)


FAMILIES = (
    Family(title="pooling and resizing", operators=tuple(_POOLING), rule=_pooling),
    Family(title="padding, of pixels and of channels", operators=_PADDING, rule=_padding, repair=_fewer_padded),
    Family(title="pixel shuffle", operators=(_A.pixel_shuffle.default,), rule=_pixel_shuffle),
    Family(title="pixel unshuffle", operators=(_A.pixel_unshuffle.default,), rule=_pixel_unshuffle),
)
