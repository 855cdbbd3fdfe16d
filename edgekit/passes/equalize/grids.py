"""The grids that factors are judged with: min-max weights, and activations clipped by mean square on a sample."""

from __future__ import annotations

import torch
from torch import fx

from edgekit.passes.aten import CONV_TRANSPOSE, LINEAR, is_call
from edgekit.passes.quantize.grids import Form, Grid, Role, activation_form, make_grid
from edgekit.passes.quantize.weights import weight_grid
from edgekit.targets import QuantizeRules

__all__ = ["clipped_grid", "form_of", "rounded_weight"]

# As finely as it takes to compare factors; the recipe's own observer has the last word on the grid.
_SHARES = (*(1.0 - 0.05 * step for step in range(1, 15)), *(0.3 * 0.8**step for step in range(1, 25)))
_WORTH_CLIPPING = 0.98
# Beyond the best range the error only rises.
_PAST_THE_BEST = 4.0
# Values of the sample that are looked at.
_VALUES = 1 << 14


def form_of(layer: fx.Node, low: float, rules: QuantizeRules) -> Form:
    """Returns which integers the layer's input takes on the target; ``low`` is its smallest value (rule 8)."""
    role: Role = "linear" if is_call(layer, LINEAR) else "conv"
    return activation_form(low, role=role, activations=rules.activations)


def clipped_grid(sample: torch.Tensor, low: float, high: float, form: Form) -> Grid:
    """Returns the grid with the least squared error on a sample, of ranges from the whole one down.

    Source: Nagel et al. 2021, arXiv:2106.08295, section 3.1 ("Mean squared error").
    """
    sample = sample.flatten()
    sample = sample[:: (len(sample) // _VALUES) | 1]
    ends = torch.tensor([low, high], dtype=torch.float64)
    best = make_grid(ends[0], ends[1], form)
    least = _error(sample, best)
    for share in _SHARES:
        grid = make_grid(ends[0] * share, ends[1] * share, form)
        error = _error(sample, grid)
        if error < least * _WORTH_CLIPPING:
            best, least = grid, error
        elif error > least * _PAST_THE_BEST:
            break
    return best


def _error(sample: torch.Tensor, grid: Grid) -> float:
    return float((grid.rounded(sample) - sample).square().mean())


def rounded_weight(layer: fx.Node, weight: torch.Tensor, rules: QuantizeRules) -> torch.Tensor:
    """Returns a weight as the target's integers stand for it, one grid per output channel (rule 9)."""
    axis = 1 if is_call(layer, CONV_TRANSPOSE) else 0
    return weight_grid(weight, axis=axis, bits=rules.weight_bits).rounded(weight)
