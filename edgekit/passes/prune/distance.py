"""How far a network's answers move: measured for a changed network, estimated for each unit from gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.importance import by_taylor
from edgekit.passes.prune.units import Group
from edgekit.program import Program

__all__ = ["Batches", "by_answers", "distance_on"]

Batches = Callable[[], Iterable[tuple[torch.Tensor, ...]]]
"""Gives float inputs of a program, batch by batch, anew at each call."""

_DRAWS = 2


def distance_on(program: Program, batches: Batches) -> Callable[[Program], float]:
    """Returns how far a program's outputs are from ``program``'s on images: squared, relative to their variance."""
    whole = [program.run(*batch) for batch in batches()]

    def distance(other: Program) -> float:
        gap = scale = 0.0
        for batch, expected in zip(batches(), whole, strict=True):
            for mine, its in zip(other.run(*batch), expected, strict=True):
                gap += float((mine - its).double().square().sum())
                scale += float((its - its.mean()).double().square().sum())
        return gap / max(scale, 1e-30)

    return distance


def by_answers(flow: Flow, groups: Sequence[Group], batches: Batches, *, seed: int) -> dict[int, float]:
    """Estimates for each unit what :func:`distance_on` would measure without it, to first order in its weights.

    The outputs are summed with random signs, an independent one for each output of each image. The square of the
    derivative of that sum along a unit's weights is, on average over the signs, the sum of the squares of what each
    output moves (Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix"). Removing a unit
    moves along its weights by their own size.

    Args:
        flow: The labels of the program.
        groups: What can go.
        batches: Inputs of the program.
        seed: Of the signs.
    """
    whole = [flow.program.run(*batch) for batch in batches()]
    scale = sum(float((item - item.mean()).double().square().sum()) for outputs in whole for item in outputs)
    generator = torch.Generator().manual_seed(seed)

    def signed(outputs: tuple[torch.Tensor, ...], number: int) -> torch.Tensor:
        return torch.stack(
            [
                (item * (2.0 * torch.randint(0, 2, item.shape, generator=generator) - 1.0)).sum()
                for item in outputs
                if item.is_floating_point()
            ]
        ).sum()

    repeated = (batch for _ in range(_DRAWS) for batch in batches())
    moved = by_taylor(flow, groups, repeated, signed)
    return {root: value / _DRAWS / max(scale, 1e-30) for root, value in moved.items()}
