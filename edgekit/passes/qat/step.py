"""A step size that is learned and stays positive."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgekit.passes.quantize.grids import SMALLEST_STEP

__all__ = ["learned_step", "step_gain"]


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, change: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        step = (start * change.exp()).clamp_min(SMALLEST_STEP)
        ctx.save_for_backward(step, gain)
        return step

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        step, gain = ctx.saved_tensors
        return None, gradients[0] * step * gain, None


def learned_step(start: torch.Tensor, change: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Returns ``start * exp(change)``, and scales the gradient of ``change`` by ``gain``.

    The step as a share of what it was: it cannot become negative, one learning rate suits steps of every size, and a
    change of zero is exactly the step that calibration chose.

    Args:
        start: The step before training, float32: a scalar, or one per channel.
        change: Its natural logarithm's change, which is learned; shaped as ``start``.
        gain: From :func:`step_gain`.
    """
    result: torch.Tensor = _LearnedStep.apply(start, change, gain)  # type: ignore[no-untyped-call]
    return result


def step_gain(start: torch.Tensor, *, values: int, levels: int) -> torch.Tensor:
    """Returns the factor with which plain gradient descent changes a step by the share that LSQ changes it by.

    LSQ learns the step ``s`` itself, with its gradient times ``g = 1 / sqrt(values * levels)``: a share of
    ``g * grad / s`` each time. The gradient of ``change`` is ``grad * s``, so it takes ``g / s^2``, with the step at
    the start for ``s``. Optimizers that divide by the gradient's size (AdamW) do not see it.

    Source: Esser et al. 2020, arXiv:1902.08153, section 2.2.

    Args:
        start: The step before training.
        values: How many values share it: of a weight, or of one image's activation.
        levels: Integers on the larger side of zero.
    """
    return 1 / math.sqrt(values * levels) / start.square()
