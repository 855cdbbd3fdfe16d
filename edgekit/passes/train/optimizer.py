"""Optimizers, the learning rate's course, and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from edgekit.passes.train.mode import tensors_of
from edgekit.passes.train.options import TrainOptions

__all__ = ["RunningMean", "make_optimizer", "rate_factor", "set_rate"]


def make_optimizer(parameters: Iterable[nn.Parameter], options: TrainOptions) -> torch.optim.Optimizer:
    """Returns the optimizer, with weight decay on weights alone.

    Args:
        parameters: Those that are trained.
        options: Say which optimizer.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        # A bias or a norm's scale has one dimension at most, whatever its shape: (C,), (1, C, 1, 1).
        (matrices if sum(size > 1 for size in parameter.shape) > 1 else vectors).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        nesterov = options.momentum > 0
        return torch.optim.SGD(groups, lr=options.highest_rate, momentum=options.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=options.highest_rate)


def rate_factor(step: int, steps: int, options: TrainOptions) -> float:
    """Returns the learning rate of a step as a share of the highest.

    Args:
        step: From 0.
        steps: Of the whole training.
        options: Give warm-up and schedule.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts; Goyal et al. 2017,
    arXiv:1706.02677, section 2.2, for the warm-up.
    """
    rising = math.ceil(options.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if options.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class RunningMean:
    """An exponential running mean of all float parameters and buffers of a module.

    In the first steps the decay is lower, ``(1 + n) / (10 + n)``, so that the mean does not hang on to where it began.
    Source: Tarvainen and Valpola 2017, arXiv:1703.01780, section 2, for the mean; TensorFlow's
    ``ExponentialMovingAverage(num_updates=n)`` for the first steps.

    Args:
        mean: A copy of the module at the beginning; its tensors become the mean.
        source: The module that is trained.
        decay: In the long run.
    """

    def __init__(self, mean: nn.Module, source: nn.Module, decay: float) -> None:
        given = tensors_of(source)
        # By identity: a tensor with two names is averaged once.
        self._pairs = {id(tensor): (tensor, given[name]) for name, tensor in tensors_of(mean).items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes the module's present values in.

        Args:
            updates: How many were made before.
        """
        decay = min(self._decay, (1 + updates) / (10 + updates))
        for mean, now in self._pairs.values():
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)
