"""Batch norm whose statistics are taken over all processes of a distributed training."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

__all__ = ["batch_norm_over_processes"]


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each process's loss sees it, so the gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed


def batch_norm_over_processes(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> torch.Tensor:
    """``aten.batch_norm`` in training mode over the batches of all processes together.

    The mean is summed first and the squares around it second: one sum of squares would lose digits where the mean is
    far from zero. Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1; the running variance is the unbiased
    one, as in torch.

    Args:
        x: (N, C, ...) of this process.
        weight, bias: (C,), or None.
        running_mean, running_var: (C,), updated in place; or None.
        training: Always True; the argument keeps the operator's signature, as does ``cudnn_enabled``.
        momentum: Weight of the new statistics in the running ones.
        eps: Added to the variance.
        cudnn_enabled: Not looked at.
    """
    axes = [0, *range(2, x.dim())]
    shape = [1, -1, *([1] * (x.dim() - 2))]
    wide = x.float()
    count = torch.full((1,), float(wide.numel() // wide.shape[1]), device=x.device)
    sums = _summed(torch.cat([wide.sum(axes), count]))
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = wide - mean.reshape(shape)
    variance = _summed(centred.square().sum(axes)) / total
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.detach(), momentum)
        if running_var is not None:
            running_var.lerp_(variance.detach() * (total / (total - 1)), momentum)
    scaled = centred * torch.rsqrt(variance + eps).reshape(shape)
    if weight is not None:
        scaled = scaled * weight.reshape(shape)
    if bias is not None:
        scaled = scaled + bias.reshape(shape)
    return scaled.to(x.dtype)


def _summed(value: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return result
