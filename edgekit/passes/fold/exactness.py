"""Measures what folding the pixels changed: the first layer before and after, on pictures of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx

from edgekit.passes.aten import read_tensor
from edgekit.passes.fold.stem import Stem
from edgekit.program import Program

__all__ = ["BORDER_LEVELS", "Exactness", "measure_exactness", "taps_outside"]

BORDER_LEVELS = 0.5
"""Largest error of a padded pixel, in pixel levels: what an 8-bit pixel itself is rounded by."""

# Inside, only the rounding of float32 may differ, 6e-8 each: two orders above it.
_INSIDE_REL_L2 = 1e-5
# What float32 makes of BORDER_LEVELS.
_SLACK = 1e-3
# An estimate on random pictures does not tell smaller differences apart.
_SMALLEST_GAIN_DB = -0.1
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Exactness:
    """What the comparison found.

    Attributes:
        inside_rel_l2: Relative L2 error of the outputs that read no padding.
        border_rel_l2: The same of those that do; None where none does.
        border_levels: The largest error there, told as an error of each padded pixel, in pixel levels.
        normalised_db, raw_db: SQNR of the first layer in int8, without and with the fold, estimated.
    """

    inside_rel_l2: float
    border_rel_l2: float | None
    border_levels: float
    normalised_db: float
    raw_db: float

    def why_not(self) -> str | None:
        """Returns why the fold is not good enough, or None where it is. NaN is not."""
        if not self.inside_rel_l2 <= _INSIDE_REL_L2:
            return f"it is off by {self.inside_rel_l2:.1e} (relative L2) inside, allowed is {_INSIDE_REL_L2:.0e}"
        if not self.border_levels <= BORDER_LEVELS + _SLACK:
            return (
                f"its border is off by {self.border_levels:.2f} pixel levels in the padding, allowed is {BORDER_LEVELS}"
            )
        if not self.raw_db - self.normalised_db >= _SMALLEST_GAIN_DB:
            return (
                f"not worth it: in int8, its output would have {self.raw_db:.1f} dB instead of "
                f"{self.normalised_db:.1f} (estimated on random pictures)"
            )
        return None

    def details(self) -> dict[str, Any]:
        """Returns the numbers for the record."""
        return {
            "inside_rel_l2": self.inside_rel_l2,
            "border_rel_l2": self.border_rel_l2,
            "border_levels": self.border_levels,
            "first_layer_int8_db": {"normalised": self.normalised_db, "raw": self.raw_db},
        }


def measure_exactness(
    before: tuple[Program, Stem], after: tuple[Program, Stem], *, weight_bits: Literal[7, 8]
) -> Exactness:
    """Lets the first layer of two programs answer black, white, noise and a smooth picture.

    Args:
        before: The program that reads normalised pixels.
        after: The one that reads ``step * (pixel - level)``.
        weight_bits: For the estimate of what int8 makes of the layer.
    """
    pictures = _pictures(before[0])
    (old, old_stem), (new, new_stem) = before, after
    expected, actual = _answers(old, old_stem, pictures), _answers(new, new_stem, pictures)
    weight = read_tensor(new.graph, new_stem.weight).detach()
    outside = taps_outside(new_stem, weight, (pictures.shape[1], pictures.shape[2]))
    border = (outside > 0).expand(expected.shape)
    error = actual - expected
    # What float rounding explains is not the border's fault.
    beyond = (error.abs() - _INSIDE_REL_L2 * expected.abs().max()).clamp_min(0)
    step = 1.0 if new_stem.factor is None else float(read_tensor(new.graph, new_stem.factor).flatten()[0])
    levels = beyond / (outside * step).clamp_min(_TINY)
    return Exactness(
        inside_rel_l2=_rel_l2(error[~border], expected[~border]),
        border_rel_l2=_rel_l2(error[border], expected[border]) if bool(border.any()) else None,
        border_levels=float(levels[border].max()) if bool(border.any()) else 0.0,
        normalised_db=_int8_db(old, old_stem, pictures[2:], weight_bits, exact_pixels=False),
        raw_db=_int8_db(new, new_stem, pictures[2:], weight_bits, exact_pixels=True),
    )


def taps_outside(stem: Stem, weight: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Returns what of a weight falls on padding, per output.

    Args:
        stem: The first layer.
        weight: (O, C, KH, KW).
        size: Height and width of the picture.

    Returns:
        (1, O, H', W') float64: the sum of the magnitudes that fall on padding; 0 where the output reads none.
    """
    magnitude = weight.detach().abs().double()
    ones = torch.ones((1, magnitude.shape[1], *size), dtype=torch.float64)
    reads = stem.layer(ones, torch.ones_like(magnitude)) < magnitude[0].numel() - 0.5
    missing = magnitude.sum((1, 2, 3))[None, :, None, None] - stem.layer(ones, magnitude)
    return missing.clamp_min(_TINY) * reads


def _pictures(program: Program) -> torch.Tensor:
    """(4, H, W, C) uint8: black, white, noise and a smooth picture, the same at every call."""
    height, width, channels = (size for size in program.inputs[0].shape[1:] if size is not None)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((channels, height, width), generator=generator)
    coarse = torch.rand((1, channels, 5, 5), generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    pictures = torch.stack([torch.zeros_like(noise), torch.ones_like(noise), noise, smooth])
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _answers(program: Program, stem: Stem, pictures: torch.Tensor) -> torch.Tensor:
    """(N, O, H', W') float64: the program up to its first convolution, on one picture after the other."""
    return _run_until(program, stem.conv, pictures).double()


def _run_until(program: Program, last: fx.Node, pictures: torch.Tensor) -> torch.Tensor:
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is last:
            break
    part.output(copies[last])
    module = fx.GraphModule(program.graph, part)
    with torch.no_grad():
        return torch.cat([module(pictures[index : index + 1]) for index in range(len(pictures))])


def _rel_l2(error: torch.Tensor, reference: torch.Tensor) -> float:
    return float(error.norm() / reference.norm().clamp_min(_TINY)) if error.numel() else 0.0


def _int8_db(
    program: Program, stem: Stem, pictures: torch.Tensor, weight_bits: Literal[7, 8], *, exact_pixels: bool
) -> float:
    """SQNR of the first layer with an int8 weight, and a uint8 picture over its whole range unless that is exact.

    A mean error per output channel does not count: the bias correction takes it back.
    """
    x = _run_until(program, stem.value, pictures).double()
    weight = read_tensor(program.graph, stem.weight).detach().double()
    reference = stem.layer(x, weight)
    if not exact_pixels:
        ends = _run_until(program, stem.value, torch.stack([torch.zeros_like(pictures[0]), 255 + 0 * pictures[0]]))
        unit = (ends.max().clamp_min(0) - ends.min().clamp_max(0)).double() / 255
        x = torch.round(x / unit) * unit
    limit = 127 if weight_bits == 8 else 63
    step = (weight.flatten(1).abs().amax(1) / limit).clamp_min(_TINY)[:, None, None, None]
    error = stem.layer(x, torch.round(weight / step) * step) - reference
    error = error - error.mean((0, 2, 3), keepdim=True)
    signal = reference - reference.mean((0, 2, 3), keepdim=True)
    return float(10 * torch.log10(signal.square().sum() / error.square().sum().clamp_min(_TINY)))
