"""Grids of weights. A weight is there as a whole, so nothing is streamed and every error is exact."""

from __future__ import annotations

from typing import Literal

import torch

from edgekit.passes.quantize.grids import Grid, make_grid, weight_form

__all__ = ["weight_grid"]

# Weights of one channel are few, and near their largest: clipping more than this never paid.
_SHARES = tuple(1.0 - 0.02 * step for step in range(21))  # 1.0 down to 0.6


def weight_grid(
    weight: torch.Tensor, *, axis: int, bits: Literal[7, 8], method: Literal["minmax", "mse"] = "minmax"
) -> Grid:
    """Returns the symmetric int8 grid of a weight, per output channel.

    Args:
        weight: float32, any rank.
        axis: Output channel dimension (0; 1 for transposed convolutions).
        bits: 8 uses [-127, 127]; 7 uses [-63, 63].
        method: ``minmax`` covers the largest magnitude of each channel; ``mse`` covers the share of it that has the
            least squared error (Nagel et al. 2021, arXiv:2106.08295, section 3.1).
    """
    form = weight_form(bits)
    rows = weight.detach().transpose(0, axis).flatten(1)
    peak = rows.abs().amax(1).double()
    # A channel of zeros has nothing to stand for; a step of its own would only be a strange number in the file.
    best = make_grid(-peak, peak, form, axis=axis)
    if method == "minmax":
        return best
    least = _error(rows, best)
    scale = best.scale.clone()
    for share in _SHARES[1:]:
        grid = make_grid(-peak * share, peak * share, form, axis=axis)
        error = _error(rows, grid)
        better = error < least
        scale[better], least[better] = grid.scale[better], error[better]
    return Grid(scale=scale, zero_point=best.zero_point, axis=axis, qmin=form.qmin, qmax=form.qmax)


def _error(rows: torch.Tensor, grid: Grid) -> torch.Tensor:
    step = grid.scale[:, None]
    rounded = (rows / step).round().clamp(grid.qmin, grid.qmax) * step
    return (rounded - rows).square().sum(1)
