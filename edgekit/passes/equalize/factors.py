"""Chooses the factors of a group: a small family of candidates, judged by the noise that int8 is predicted to add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.passes.equalize.grids import clipped_grid, form_of
from edgekit.passes.equalize.groups import Group, input_of, weight_blocks
from edgekit.passes.equalize.statistics import Seen
from edgekit.passes.quantize.grids import Grid, weight_form
from edgekit.targets import QuantizeRules

__all__ = ["ALPHAS", "Factors", "Halves", "choose_factors"]

Halves = Mapping[fx.Node, tuple[Seen, Seen]]
"""For each tensor that a group's layers read, what was seen of it on either half of the images."""

ALPHAS = (0.25, 0.5, 0.75, 1.0)
"""How much of a channel's range moves into the weights: all of it with 1, half of the difference with 0.5."""

# Exponent, largest magnitude (or root mean square) of the activations, weights relative to their output channel's
# largest (or as they are). With exponent 1 the weights do not count.
_CANDIDATES = tuple(
    (alpha, peak, relative)
    for alpha in ALPHAS
    for peak in (True, False)
    for relative in (True, False)
    if relative or alpha < 1
)

# A channel is never scaled by more than this against the channel with the largest factor: what a channel did on some
# images is a poor promise when it did almost nothing.
_WIDEST = 1e4

# Output channels have grids of their own, so a part of them says what rounding costs.
_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a group's channels are divided by.

    Attributes:
        values: (channels,), float32, positive.
        alpha: The exponent that gave them.
        grids: For each tensor that the layers read, its grid before and after.
        predicted_db: By how much the noise at the layers' outputs is predicted to fall.
    """

    values: torch.Tensor
    alpha: float
    grids: Mapping[fx.Node, tuple[Grid, Grid]]
    predicted_db: float


def choose_factors(
    group: Group, halves: Halves, weights: Mapping[fx.Node, torch.Tensor], rules: QuantizeRules
) -> Factors:
    """Returns the best of the candidates, which may be worse than no factors at all.

    A candidate is ``s_j = a_j^alpha / w_j^(1 - alpha)``. ``a_j`` is the largest magnitude of channel ``j``, or its root
    mean square, which settles on fewer images. ``w_j`` is the largest weight that reads it, as it is or relative to the
    largest of its output channel, because weights have one grid per output channel. With ``alpha = 0.5`` and the
    weights' ranges for ``a_j`` it is the factor of cross-layer equalization.

    The noise of a candidate is predicted on one half of the images with factors and grids from the other: factors bring
    every channel to the end of the grid, and so make the most of ranges that have not settled. Predicted noise is, of
    each channel, the mean square of its rounding error times the squared weights that read it, plus of each weight its
    squared rounding error times the channel's mean square.

    Source: Nagel et al. 2019, arXiv:1906.04721, equation 11; Xiao et al. 2022, arXiv:2211.10438, equation 4.
    """
    first = {node: half for node, (half, _) in halves.items()}
    second = {node: half for node, (_, half) in halves.items()}
    whole = {node: half.joined(other) for node, (half, other) in halves.items()}
    readers = [_reader(layer, weights[layer], second[input_of(layer)], rules) for layer in group.layers]
    ones = torch.ones(group.channels)
    before = _noise(readers, ones, _grids(group, rules, ones, first), second)
    least, best = math.inf, _CANDIDATES[0]
    for candidate in _CANDIDATES:
        values = _factors(group, readers, first, *candidate)
        noise = _noise(readers, values, _grids(group, rules, values, first), second)
        if noise < least:
            least, best = noise, candidate
    values = _factors(group, readers, whole, *best)
    grids = [_grids(group, rules, item, whole) for item in (ones, values)]
    return Factors(
        values=values,
        alpha=best[0],
        grids={node: (grids[0][node], grids[1][node]) for node in whole},
        predicted_db=10 * math.log10(before / least) if before > 0 and least > 0 else 0.0,
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """A layer as its noise is predicted.

    Attributes:
        source: The tensor that it reads.
        rows: Weights of evenly spaced output channels, (groups, outputs, inputs, taps); all their inputs.
        gain: Sum of the squared weights that read each channel, (channels,).
        power: Mean square of each channel, (channels,).
        largest: Largest weight that reads each channel, (channels,): as it is, and relative to its output channel's.
        limit: Largest integer of a weight.
    """

    source: fx.Node
    rows: torch.Tensor
    gain: torch.Tensor
    power: torch.Tensor
    largest: tuple[torch.Tensor, torch.Tensor]
    limit: int


def _reader(layer: fx.Node, weight: torch.Tensor, seen: Seen, rules: QuantizeRules) -> _Reader:
    blocks = weight_blocks(layer, weight)
    size = blocks.abs()
    peaks = size.amax((2, 3), keepdim=True)
    relative = size / torch.where(peaks > 0, peaks, 1.0)
    rows = blocks[:, :: max(1, blocks.shape[1] // _ROWS)]
    return _Reader(
        source=input_of(layer),
        rows=rows,
        gain=rows.square().sum((1, 3)).flatten(),
        power=seen.sample.square().mean(0),
        largest=(size.amax((1, 3)).flatten(), relative.amax((1, 3)).flatten()),
        limit=weight_form(rules.weight_bits).qmax,
    )


def _factors(
    group: Group,
    readers: Sequence[_Reader],
    seen: Mapping[fx.Node, Seen],
    alpha: float,
    by_peak: bool,
    relative: bool,
) -> torch.Tensor:
    peak = torch.stack([item.peak for item in seen.values()]).amax(0).double()
    used = torch.stack([item.largest[relative] for item in readers]).amax(0).double()
    if not peak.any() or not used.any():
        return torch.ones(group.channels)
    size = peak
    if not by_peak:
        size = torch.stack([item.sample.square().mean(0) for item in seen.values()]).amax(0).double().sqrt()
        # The sample may have missed all values of a rare channel.
        size = torch.where(size > 0, size, peak / peak.max() * size.max())
    # A channel without values must not be blown up: it counts as the largest. One that no weight reads counts as the
    # least read, so that it does not widen the grid.
    size = torch.where(size > 0, size, size.max())
    used = torch.where(used > 0, used, used[used > 0].min())
    factors = size**alpha / used ** (1 - alpha)
    factors = factors.clamp_min(factors.max() / _WIDEST)
    # The tensor's own range stays as it was, so that nothing overflows in half precision.
    factors = factors * (peak / factors).max() / peak.max()
    if group.bound is not None:
        # Scaled bounds must not lie inside the tensor's range, so that the 8-bit grid ends below all of them.
        factors = factors.clamp_max(group.bound / float(peak.max()))
    return factors.float()


def _grids(
    group: Group, rules: QuantizeRules, factors: torch.Tensor, seen: Mapping[fx.Node, Seen]
) -> dict[fx.Node, Grid]:
    grids: dict[fx.Node, Grid] = {}
    for layer in group.layers:
        source = input_of(layer)
        if source not in grids:
            item = seen[source]
            low, high = float((item.low / factors).min()), float((item.high / factors).max())
            grids[source] = clipped_grid(item.sample / factors, low, high, form_of(layer, low, rules))
    return grids


def _noise(
    readers: Sequence[_Reader], factors: torch.Tensor, grids: Mapping[fx.Node, Grid], seen: Mapping[fx.Node, Seen]
) -> float:
    """Predicts the noise at the outputs of layers, each relative to its signal, and adds it up."""
    rounding: dict[fx.Node, torch.Tensor] = {}
    for source, grid in grids.items():
        scaled = seen[source].sample / factors
        rounding[source] = ((grid.rounded(scaled) - scaled) * factors).square().mean(0)
    total = 0.0
    for reader in readers:
        shaped = factors.reshape(len(reader.rows), 1, -1, 1)
        changed = reader.rows * shaped
        step = changed.abs().amax((2, 3), keepdim=True) / reader.limit
        step = torch.where(step > 0, step, 1.0)
        error = ((changed / step).round() * step - changed) / shaped
        signal = float(reader.gain @ reader.power)
        added = float(reader.gain @ rounding[reader.source])
        added += float(error.square().sum((1, 3)).flatten() @ reader.power)
        # Layers that share a tensor count alike, whatever their output's size.
        total += added / signal if signal > 0 else 0.0
    return total
