"""Schemes: from an observed range to scale, zero-point and integer limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from edgekit.passes.quantize.observers import HistogramObserver

__all__ = ["Grid", "Role", "activation_grid", "weight_grid"]

Role = Literal["conv", "linear"]

# Ranges narrower than this are constant in practice; a smaller step would overflow when it is inverted in half
# precision.
_SMALLEST_STEP = 1e-8
# A tighter range must beat the wider one by this factor: histograms are estimates, and clipping is what unseen data
# punish.
_WORTH_CLIPPING = 0.98
_SHRINK = tuple(1.0 - 0.025 * step for step in range(29))  # 1.0 down to 0.3


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Integers that stand for reals: ``real = scale * (q - zero_point)``.

    Attributes:
        scale: float32, scalar or one per channel.
        zero_point: uint8 or int8, shaped as ``scale``.
        axis: Channel dimension, or -1 for per-tensor.
        qmin, qmax: Integer limits.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    axis: int
    qmin: int
    qmax: int

    def limits(self) -> tuple[float, float]:
        """Smallest and largest real of a per-tensor grid."""
        zero = float(self.zero_point)
        return float(self.scale) * (self.qmin - zero), float(self.scale) * (self.qmax - zero)


def activation_grid(
    observer: HistogramObserver,
    *,
    role: Role,
    activations: Literal["uint8-asymmetric", "int8-symmetric"],
    method: Literal["minmax", "mse"],
) -> Grid:
    """Chooses the grid of one activation tensor.

    ``int8-symmetric``: int8, zero-point 0 (TensorRT's only form). ``uint8-asymmetric``: uint8 with a zero-point for
    convolutions; for linears symmetric, uint8 with zero-point 0 where no value is negative, else int8 (OpenVINO's fast
    kernels).

    Args:
        observer: What calibration saw.
        role: What consumes the tensor.
        activations: The target's scheme.
        method: ``minmax`` keeps the whole range; ``mse`` clips it where that lowers the mean squared error over the
            histogram (Nagel et al. 2021, arXiv:2106.08295, section 3.1, "MSE").
    """
    low, high = min(observer.minimum, 0.0), max(observer.maximum, 0.0)
    kind = _integers(low, role, activations)
    best = _grid(low, high, kind)
    if method == "minmax":
        return best
    centers, counts, width = observer.histogram()
    # A bin holds several steps' worth of positions: four points in each stand for the values that it counted.
    centers = (centers[:, None] + width * torch.tensor([-0.375, -0.125, 0.125, 0.375], dtype=torch.float64)).flatten()
    counts = counts.repeat_interleave(4)
    best_error = _error(best, centers, counts)
    best_pair = (1.0, 1.0)
    pairs = [(item, item) for item in _SHRINK]
    for search in range(3 if kind == "asymmetric" else 1):
        if search == 1:
            pairs = [(item, best_pair[1]) for item in _SHRINK]
        elif search == 2:
            pairs = [(best_pair[0], item) for item in _SHRINK]
        for pair in pairs:
            grid = _grid(low * pair[0], high * pair[1], kind)
            error = _error(grid, centers, counts)
            if error < best_error * _WORTH_CLIPPING:
                best, best_error, best_pair = grid, error, pair
    return best


def weight_grid(weight: torch.Tensor, *, axis: int, bits: Literal[7, 8]) -> Grid:
    """Symmetric per-channel int8 grid of a weight, by its largest magnitude per output channel.

    Args:
        weight: float32, any rank.
        axis: Output channel dimension (0; 1 for transposed convolutions).
        bits: 8 uses [-127, 127]; 7 uses [-63, 63], so that a pair of products fits the 16-bit accumulator of CPUs
            without VNNI.
    """
    limit = 127 if bits == 8 else 63
    peak = weight.detach().transpose(0, axis).flatten(1).abs().amax(1)
    scale = (peak.double() / limit).clamp_min(_SMALLEST_STEP).float()
    return Grid(scale=scale, zero_point=torch.zeros(len(scale), dtype=torch.int8), axis=axis, qmin=-limit, qmax=limit)


def _integers(low: float, role: Role, activations: str) -> Literal["asymmetric", "unsigned", "signed"]:
    if activations == "int8-symmetric":
        return "signed"
    if role == "conv":
        return "asymmetric"
    return "unsigned" if low >= 0 else "signed"


def _grid(low: float, high: float, kind: str) -> Grid:
    if kind == "signed":
        step = max(-low / 128, high / 127, _SMALLEST_STEP)
        return _scalar_grid(step, 0, torch.int8, -128, 127)
    step = max((high - low) / 255, _SMALLEST_STEP)
    zero = 0 if kind == "unsigned" else min(255, max(0, round(-low / step)))
    return _scalar_grid(step, zero, torch.uint8, 0, 255)


def _scalar_grid(step: float, zero: int, dtype: torch.dtype, qmin: int, qmax: int) -> Grid:
    return Grid(
        scale=torch.tensor(step, dtype=torch.float32),
        zero_point=torch.tensor(zero, dtype=dtype),
        axis=-1,
        qmin=qmin,
        qmax=qmax,
    )


def _error(grid: Grid, centers: torch.Tensor, counts: torch.Tensor) -> float:
    """Mean squared quantization error over a histogram, in float64."""
    scale, zero = grid.scale.double(), grid.zero_point.double()
    level = torch.clamp(torch.round(centers / scale) + zero, grid.qmin, grid.qmax)
    return float((((level - zero) * scale - centers) ** 2 * counts).sum() / counts.sum())
