"""Reductions and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_SUMS = (_A.sum.dim_IntList, _A.linalg_vector_norm.default)
_OTHERS = (_A.mean.dim, _A.amax.default, _A.amin.default, _A.var.correction, _A.std.correction, _A.mean.default)


def _reduced(flow: Flow, node: fx.Node, *, exact: bool) -> Value:
    """Sums lose nothing when zeros leave; means and extremes do, so what they are taken over stays."""
    call = named(node)
    source: Any = node.args[0]
    value = flow.value(source)
    dims = call.get("dim")
    dims = range(len(value)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    over = {place % len(value) for place in dims}
    for place in over:
        axis = value[place]
        if axis is not None and not (exact and axis.zero):
            flow.freeze(axis, node, "an average or extreme is taken over it")
    # After a function of something else, zero stays zero only along what was not summed.
    if call.get("keepdim", False):
        return tuple(None if place in over else axis for place, axis in enumerate(value))
    return tuple(axis for place, axis in enumerate(value) if place not in over)


def _sum(flow: Flow, node: fx.Node) -> Value:
    order = named(node).get("ord", 2)
    return _reduced(flow, node, exact=isinstance(order, (int, float)) and order > 0)


def _mean(flow: Flow, node: fx.Node) -> Value:
    return _reduced(flow, node, exact=False)


def _softmax(flow: Flow, node: fx.Node) -> Value:
    """Zeros have weight in a softmax: what it is taken over stays, and nothing is zero after it."""
    value = flow.value(node.args[0])
    flow.freeze(value[named(node)["dim"] % len(value)], node, "a softmax is taken over it")
    return tuple(None if axis is None else Axis(labels=axis.labels, zero=False) for axis in value)


FAMILIES = (
    Family(title="sums and norms", operators=_SUMS, rule=_sum),
    Family(title="means, extremes, variances", operators=_OTHERS, rule=_mean),
    Family(
        title="softmax",
        operators=(_A.softmax.int, _A._softmax.default, _A.log_softmax.int, _A._log_softmax.default),
        rule=_softmax,
    ),
)
