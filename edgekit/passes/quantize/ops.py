"""The one operator that carries int8 through the trainable graph: ``edgekit::qdq``, quantize then dequantize."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DEQUANTIZE", "QDQ", "dequantize", "qdq"]


def _broadcast(value: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    if axis < 0:
        return value
    shape = [1] * rank
    shape[axis] = -1
    return value.reshape(shape)


@torch.library.custom_op("edgekit::qdq", mutates_args=())
def qdq(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int, qmin: int, qmax: int
) -> torch.Tensor:
    """Rounds values to the grid ``scale * (q - zero_point)``, ``q`` an integer in [qmin, qmax].

    Rounding is half to even and the quotient is a division, exactly as ONNX defines QuantizeLinear and DequantizeLinear
    (operator set 20), so that this op, ONNX Runtime and the engines agree bit by bit where they keep to the standard.
    The gradient is the straight-through estimator (Bengio et al. 2013, arXiv:1308.3432): one inside the range, zero
    where clipped.

    Args:
        x: Any shape, float32.
        scale: float32; a scalar when ``axis`` is -1, else one value per index of ``axis``.
        zero_point: uint8 or int8, shaped as ``scale``; its type is the type of the integers.
        axis: Dimension of per-channel quantization, or -1 for per-tensor.
        qmin, qmax: Smallest and largest integer used.

    Returns:
        The rounded values, shape and dtype of ``x``.
    """
    step = _broadcast(scale, x.ndim, axis)
    zero = _broadcast(zero_point, x.ndim, axis).to(x.dtype)
    # One tensor of fresh memory instead of six: most of the time would go there.
    return (x / step).round_().add_(zero).clamp_(qmin, qmax).sub_(zero).mul_(step)


@qdq.register_fake
def _(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int, qmin: int, qmax: int) -> torch.Tensor:
    return torch.empty_like(x)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, scale, zero_point, axis, qmin, qmax = inputs
    zero = _broadcast(zero_point, x.ndim, axis).to(x.dtype)
    level = torch.round(x / _broadcast(scale, x.ndim, axis)) + zero
    ctx.save_for_backward((level >= qmin) & (level <= qmax))


def _straight_through(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (inside,) = ctx.saved_tensors
    return grad * inside, None, None, None, None, None


qdq.register_autograd(_straight_through, setup_context=_remember)


@torch.library.custom_op("edgekit::dequantize", mutates_args=())
def dequantize(q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int) -> torch.Tensor:
    """Turns stored integers into floats: ``(q - zero_point) * scale``. Only export makes it, from frozen weights.

    Args:
        q: int8, any shape.
        scale: float32, one value per index of ``axis``.
        zero_point: int8, shaped as ``scale``.
        axis: Dimension of per-channel quantization.
    """
    zero = _broadcast(zero_point, q.ndim, axis).to(scale.dtype)
    return (q.to(scale.dtype) - zero) * _broadcast(scale, q.ndim, axis)


@dequantize.register_fake
def _(q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.empty_like(q, dtype=scale.dtype)


QDQ = torch.ops.edgekit.qdq.default
"""The operator of :func:`qdq` as it stands in graphs."""

DEQUANTIZE = torch.ops.edgekit.dequantize.default
"""The operator of :func:`dequantize` as it stands in graphs."""
