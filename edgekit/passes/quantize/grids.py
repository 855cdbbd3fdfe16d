"""Grids: which integers stand for which reals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from edgekit.passes.quantize.ops import QDQ

__all__ = ["SMALLEST_STEP", "Form", "Grid", "Role", "activation_form", "make_grid", "weight_form"]

Role = Literal["conv", "linear"]

# A smaller step would overflow when it is inverted in half precision.
SMALLEST_STEP = 1e-8
"""The smallest step of a grid."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """The integers of a kind of tensor.

    Attributes:
        dtype: uint8 or int8.
        qmin, qmax: Smallest and largest integer used.
        symmetric: The zero-point is 0; otherwise it is where the range wants it.
    """

    dtype: torch.dtype
    qmin: int
    qmax: int
    symmetric: bool

    @property
    def levels(self) -> int:
        """How many integers there are."""
        return self.qmax - self.qmin + 1


ASYMMETRIC = Form(dtype=torch.uint8, qmin=0, qmax=255, symmetric=False)
UNSIGNED = Form(dtype=torch.uint8, qmin=0, qmax=255, symmetric=True)
SIGNED = Form(dtype=torch.int8, qmin=-128, qmax=127, symmetric=True)


def activation_form(low: float, *, role: Role, activations: Literal["uint8-asymmetric", "int8-symmetric"]) -> Form:
    """Returns the integers of an activation (rule 8).

    Args:
        low: Smallest value seen.
        role: What reads the tensor.
        activations: The target's scheme. ``int8-symmetric``: int8, zero-point 0 (TensorRT's only form).
            ``uint8-asymmetric``: uint8 with a zero-point for convolutions; for linears symmetric, uint8 where no value
            is negative, else int8 (OpenVINO's fast kernels).
    """
    if activations == "int8-symmetric":
        return SIGNED
    if role == "conv":
        return ASYMMETRIC
    return UNSIGNED if low >= 0 else SIGNED


def weight_form(bits: Literal[7, 8]) -> Form:
    """Returns the integers of a weight (rule 9): [-127, 127], or [-63, 63].

    With 7 bits the sum of two products fits the 16-bit accumulator of CPUs without VNNI.
    """
    limit = 127 if bits == 8 else 63
    return Form(dtype=torch.int8, qmin=-limit, qmax=limit, symmetric=True)


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

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values (any shape, float32) as the integers stand for them, in float; no gradient flows."""
        with torch.no_grad():
            answer: torch.Tensor = QDQ(values, self.scale, self.zero_point, self.axis, self.qmin, self.qmax)
        return answer

    def limits(self) -> tuple[float, float]:
        """Smallest and largest real; of a grid per channel, over all channels."""
        scale, zero = self.scale.double(), self.zero_point.double()
        return float((scale * (self.qmin - zero)).min()), float((scale * (self.qmax - zero)).max())


def make_grid(low: torch.Tensor, high: torch.Tensor, form: Form, *, axis: int = -1) -> Grid:
    """Returns the grid that just covers a range; zero is always one of its reals.

    Args:
        low, high: float64, scalars or one per channel; ranges that do not include zero are widened to it. A range of
            nothing but zero gets the step of a range up to 1, so that values which calibration never saw survive.
        form: The integers.
        axis: Channel dimension, or -1 for scalars.
    """
    low, high = low.double().clamp_max(0), high.double().clamp_min(0)
    step = steps(low, high, form)
    zero = torch.zeros_like(step) if form.symmetric else (-low / step).round().clamp(form.qmin, form.qmax)
    return Grid(scale=step.float(), zero_point=zero.to(form.dtype), axis=axis, qmin=form.qmin, qmax=form.qmax)


def steps(low: torch.Tensor, high: torch.Tensor, form: Form) -> torch.Tensor:
    """Returns the step of the grid that just covers [low, high], which includes zero; same shape, float64."""
    if not form.symmetric:
        span = (high - low) / (form.qmax - form.qmin)
    elif form.qmin < 0:
        span = torch.maximum(-low / -form.qmin, high / form.qmax)
    else:
        span = high / form.qmax
    empty = (low == 0) & (high == 0)
    return torch.where(empty, torch.full_like(span, 1 / form.qmax), span).clamp_min(SMALLEST_STEP)
