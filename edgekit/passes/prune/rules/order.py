"""Operators that only change the order or the number of dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten


def _permute(flow: Flow, node: fx.Node) -> Value:
    value = flow.value(node.args[0])
    return tuple(value[place] for place in named(node)["dims"])


def _transpose(flow: Flow, node: fx.Node) -> Value:
    value = list(flow.value(node.args[0]))
    _, one, other = list(named(node).values())[:3]
    value[one], value[other] = value[other], value[one]
    return tuple(value)


def _reversed(flow: Flow, node: fx.Node) -> Value:
    return flow.value(node.args[0])[::-1]


def _unsqueeze(flow: Flow, node: fx.Node) -> Value:
    value = list(flow.value(node.args[0]))
    value.insert(named(node)["dim"] % (len(value) + 1), None)
    return tuple(value)


def _squeeze(flow: Flow, node: fx.Node) -> Value:
    source: Any = node.args[0]
    sizes = flow.shape(source)
    dims = named(node).get("dim", range(len(sizes)))
    gone = {place % len(sizes) for place in ([dims] if isinstance(dims, int) else dims)}
    return tuple(axis for place, axis in enumerate(flow.value(source)) if not (place in gone and sizes[place] == 1))


def _expand(flow: Flow, node: fx.Node) -> Value:
    source: Any = node.args[0]
    before, after = flow.shape(source), flow.shape(node)
    offset = len(after) - len(before)
    value = flow.value(source)
    result: list[Axis | None] = []
    for place, size in enumerate(after):
        old = place - offset
        result.append(value[old] if old >= 0 and before[old] == size else None)
    return tuple(result)


def _new_sizes(cut: Any, node: fx.Node) -> None:
    cut.resize(node, "size")


FAMILIES = (
    Family(title="permute", operators=(_A.permute.default,), rule=_permute),
    Family(title="transpose", operators=(_A.transpose.int, _A.swapaxes.default), rule=_transpose),
    Family(title="matrix transpose", operators=(_A.t.default, _A.numpy_T.default), rule=_reversed),
    Family(title="unsqueeze", operators=(_A.unsqueeze.default,), rule=_unsqueeze),
    Family(
        title="squeeze",
        operators=(_A.squeeze.default, _A.squeeze.dim, _A.squeeze.dims),
        rule=_squeeze,
    ),
    Family(title="expand", operators=(_A.expand.default,), rule=_expand, repair=_new_sizes),
)
