"""Operators on each element by itself, of one tensor or of several that are broadcast."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_WHY = "it is combined, element by element, with something that has no channels of its own"

_UNARY = (
    _A.relu.default,
    _A.relu6.default,
    _A.silu.default,
    _A.gelu.default,
    _A.hardtanh.default,
    _A.hardswish.default,
    _A.hardsigmoid.default,
    _A.sigmoid.default,
    _A.tanh.default,
    _A.elu.default,
    _A.selu.default,
    _A.celu.default,
    _A.leaky_relu.default,
    _A.mish.default,
    _A.softplus.default,
    _A.log_sigmoid.default,
    _A.dropout.default,
    _A.feature_dropout.default,
    _A.alpha_dropout.default,
    _A.neg.default,
    _A.abs.default,
    _A.exp.default,
    _A.log.default,
    _A.sqrt.default,
    _A.rsqrt.default,
    _A.square.default,
    _A.reciprocal.default,
    _A.sin.default,
    _A.cos.default,
    _A.erf.default,
    _A.sign.default,
    _A.pow.Tensor_Scalar,
    _A.clamp.default,
    _A.clamp_min.default,
    _A.clamp_max.default,
    _A.threshold.default,
    _A.to.dtype,
    _A.to.dtype_layout,
    _A._to_copy.default,
    _A.clone.default,
    _A.contiguous.default,
    _A.detach.default,
    _A.alias.default,
    _A.zeros_like.default,
    _A.ones_like.default,
    _A.full_like.default,
    _A.add.Scalar,
    _A.sub.Scalar,
    _A.mul.Scalar,
    _A.div.Scalar,
    _A.rsub.Scalar,
    _A.logical_not.default,
    _A.gt.Scalar,
    _A.ge.Scalar,
    _A.lt.Scalar,
    _A.le.Scalar,
    _A.eq.Scalar,
    _A.ne.Scalar,
)
_PRODUCTS = (_A.mul.Tensor, _A.logical_and.default)
_QUOTIENTS = (_A.div.Tensor,)
_SUMS = (
    _A.add.Tensor,
    _A.sub.Tensor,
    _A.rsub.Tensor,
    _A.maximum.default,
    _A.minimum.default,
    _A.where.self,
    _A.gt.Tensor,
    _A.ge.Tensor,
    _A.lt.Tensor,
    _A.le.Tensor,
    _A.eq.Tensor,
    _A.ne.Tensor,
)


def _unary(flow: Flow, node: fx.Node) -> Value | None:
    tensors = [item for item in node.args if flow.is_tensor(item)]
    if len(tensors) != 1 or len(node.all_input_nodes) != 1:
        return None
    zero = _keeps_zero(node)
    return tuple(
        None if axis is None else Axis(labels=axis.labels, zero=axis.zero and zero) for axis in flow.value(tensors[0])
    )


def _keeps_zero(node: fx.Node) -> bool:
    """Whether the operator gives zero for zero: asked of the operator itself."""
    zero = torch.zeros(1)
    args = tuple(zero if isinstance(item, fx.Node) else item for item in node.args)
    target: Any = node.target
    try:
        result = target(*args, **dict(node.kwargs))
    except (RuntimeError, TypeError):
        return False
    return isinstance(result, torch.Tensor) and bool((result == 0).all())


def _product(flow: Flow, node: fx.Node) -> Value:
    # Zero times anything finite is zero.
    return _broadcast(flow, node, zero=any)


def _sum(flow: Flow, node: fx.Node) -> Value:
    return _broadcast(flow, node, zero=all)


def _quotient(flow: Flow, node: fx.Node) -> Value:
    over, under = node.args[0], node.args[1]
    if flow.is_tensor(under):
        for axis in flow.value(under):
            if axis is not None and axis.zero:
                flow.freeze(axis, node, "it is divided by, and would be zero")
    zero_over = flow.value(over) if flow.is_tensor(over) else ()
    result = _broadcast(flow, node, zero=all)
    missing = len(result) - len(zero_over)
    return tuple(
        None
        if axis is None
        else Axis(labels=axis.labels, zero=_is_zero(zero_over[position - missing] if position >= missing else None))
        for position, axis in enumerate(result)
    )


def _is_zero(axis: Axis | None) -> bool:
    return axis is not None and axis.zero


def _broadcast(flow: Flow, node: fx.Node, *, zero: Any) -> Value:
    """Aligns the operands at their last dimension, as NumPy does; one that is repeated along a dimension adds to it."""
    operands = [item for item in node.args if flow.is_tensor(item)]
    scalars = any(isinstance(item, (int, float)) and item != 0 for item in node.args[:2])
    rank = len(flow.shape(node))
    result: list[Axis | None] = []
    for back in range(rank, 0, -1):
        axes = [
            (flow.value(item)[-back], flow.shape(item)[-back]) for item in operands if len(flow.shape(item)) >= back
        ]
        repeated = len(axes) < len(operands) or any(size == 1 for _, size in axes) or scalars
        full = [axis for axis, size in axes if size != 1]
        for axis, size in axes:
            if size == 1:
                flow.freeze(axis, node, "it is repeated along the channels")
        for other in full[1:]:
            flow.same(full[0], other, node, _WHY)
        known = [axis for axis in full if axis is not None]
        if not known or len(known) < len(full):
            result.append(None)
            continue
        flags = [axis.zero for axis in known] + ([False] if repeated else [])
        result.append(Axis(labels=known[0].labels, zero=zero(flags)))
    return tuple(result)


def _prelu(flow: Flow, node: fx.Node) -> Value:
    value = flow.value(node.args[0])
    slope = flow.parameter(node.args[1], "along")
    if slope[0] is not None:
        flow.same(slope[0], value[1], node, _WHY)
    return value


FAMILIES = (
    Family(title="activations and other functions of one element", operators=_UNARY, rule=_unary),
    Family(title="products of tensors (gates, scales)", operators=_PRODUCTS, rule=_product),
    Family(title="quotients of tensors", operators=_QUOTIENTS, rule=_quotient),
    Family(title="sums, comparisons and choices (residual connections)", operators=_SUMS, rule=_sum),
    Family(title="PReLU", operators=(_A.prelu.default,), rule=_prelu),
)
