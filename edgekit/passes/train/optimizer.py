"""Optimizers, the learning rate's course, and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.passes.train.mode import tensors_of
from edgekit.passes.train.options import TrainOptions

__all__ = ["Pace", "RunningMean", "make_optimizer", "rate_factor", "set_rate"]


# Keys of ours in the optimizer's groups.
_FACTOR, _UNTIL = "rate_factor", "until"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Parameters that learn at a rate of their own, for a part of the training.

    Attributes:
        names: Of the program's parameters. They have no weight decay.
        factor: Times the learning rate of the others.
        until: Share of all steps after which they stay as they are.
    """

    names: tuple[str, ...]
    factor: float = 1.0
    until: float = 1.0


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    options: TrainOptions,
    *,
    pace: Pace | None = None,
    paced: Iterable[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """Returns the optimizer, with weight decay on weights alone.

    Args:
        parameters: Those that are trained.
        options: Say which optimizer.
        pace: Rate and end of the ``paced``.
        paced: Those of the parameters that ``pace`` names.
    """
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    apart = {id(parameter): parameter for parameter in paced}
    for parameter in parameters:
        if id(parameter) in apart:
            continue
        # A bias or a norm's scale has one dimension at most, whatever its shape: (C,), (1, C, 1, 1).
        (matrices if sum(size > 1 for size in parameter.shape) > 1 else vectors).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if pace is not None:
        own = {_FACTOR: pace.factor, _UNTIL: pace.until}
        groups.append({"params": list(apart.values()), "weight_decay": 0.0, **own})
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


def set_rate(optimizer: torch.optim.Optimizer, rate: float, *, share: float = 0.0) -> None:
    """Sets the learning rate of all parameters.

    Args:
        optimizer: From :func:`make_optimizer`.
        rate: Of those without a pace of their own.
        share: Of the training that is done; parameters whose time is over get a rate of zero.
    """
    for group in optimizer.param_groups:
        # Equal shares are over: until = 0 never learns.
        over = share >= group.get(_UNTIL, math.inf)
        group["lr"] = 0.0 if over else rate * group.get(_FACTOR, 1.0)


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
