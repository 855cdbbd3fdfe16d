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
    The gradient of ``x`` is the straight-through estimator (Bengio et al. 2013, arXiv:1308.3432): one inside the range,
    zero where clipped. That of ``scale`` is the learned step size's (Esser et al. 2020, arXiv:1902.08153, equation 3)
    with the zero-point held: ``round(x / scale) - x / scale`` inside, ``qmin - zero_point`` and ``qmax - zero_point``
    where clipped. Inside is what rounds to an integer of the range, for both.

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
    x, scale, zero_point, ctx.axis, ctx.qmin, ctx.qmax = inputs
    # Most often the layers before and after keep these two anyway. A mask would be one more tensor, and slower.
    ctx.save_for_backward(x, output if ctx.needs_input_grad[1] else None, scale, zero_point)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, output, scale, zero_point = ctx.saved_tensors
    step = _broadcast(scale, x.ndim, ctx.axis)
    zero = _broadcast(zero_point, x.ndim, ctx.axis).to(x.dtype)
    passed = _inside(grad, x, (ctx.qmin - zero - 0.5) * step, (ctx.qmax - zero + 0.5) * step)
    of_scale = None
    if output is not None:
        # The output is scale * integer: inside, its derivative is (output - x) / scale, elsewhere output / scale.
        if ctx.axis < 0:
            of_scale = (_dot(grad, output) - _dot(passed, x)) / scale
        else:
            rest = [dim for dim in range(x.ndim) if dim != ctx.axis]
            of_scale = (grad * output - passed * x).sum(rest) / scale
    return passed, of_scale, None, None, None, None


# An operator of its own, so that those who trace gradients do not look into it: it reads numbers out of tensors.
@torch.library.custom_op("edgekit::inside", mutates_args=())
def _inside(grad: torch.Tensor, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Returns ``grad`` where ``x`` is between the bounds, and zero elsewhere."""
    if low.ndim == 0 and x.device.type == "cpu":
        # One pass over memory instead of four. On a GPU it would wait for the two numbers.
        return torch.ops.aten.hardtanh_backward(grad, x, float(low), float(high))  # type: ignore[no-any-return]
    return torch.where((x >= low) & (x <= high), grad, 0.0)


@_inside.register_fake
def _(grad: torch.Tensor, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(grad)


def _dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns the sum of products, in memory order where both have one."""
    if first.stride() == second.stride() and first.is_contiguous(memory_format=torch.channels_last):
        first, second = first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)
    return torch.dot(first.reshape(-1), second.reshape(-1))


qdq.register_autograd(_gradients, setup_context=_remember)


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
