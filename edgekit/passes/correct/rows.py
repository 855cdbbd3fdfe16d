"""A layer as a matrix product: its inputs as rows, one for each output position, and the outputs wanted there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from edgekit.passes.aten import CONV_TRANSPOSE, LINEAR, argument, is_call
from edgekit.passes.correct.lockstep import Stop

__all__ = ["MAX_COLUMNS", "Moments", "collect", "why_no_rows"]

MAX_COLUMNS = 8192
"""A Gram matrix of more columns is not made: it would take more than 256 MiB, and its factorisation minutes."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What adaptive rounding needs to know of a layer's inputs ``X`` and of the outputs ``T`` wanted of it.

    Attributes:
        gram: ``X' X``, float32 (groups, K, K), with K the weights of one output channel.
        product: ``T' X``, float32 (groups, channels of a group, K).
        rows: How many rows are in the sums.
    """

    gram: torch.Tensor
    product: torch.Tensor
    rows: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(gram=self.gram + other.gram, product=self.product + other.product, rows=self.rows + other.rows)


def why_no_rows(node: fx.Node, weight: torch.Tensor) -> str | None:
    """Says why a layer is not written as a matrix product; None where it can be."""
    if is_call(node, CONV_TRANSPOSE):
        return "a transposed convolution is not rounded adaptively"
    columns = weight[0].numel()
    if columns > MAX_COLUMNS:
        return f"each output channel has {columns} weights; adaptive rounding goes up to {MAX_COLUMNS}"
    return None


def collect(stop: Stop, batches: Sequence[int], *, rows: int, seed: int) -> tuple[Moments, Moments]:
    """Sums over a layer's inputs in the quantized network, and over the outputs that would make good all errors so far.

    The output wanted is the float layer's, less the bias. Where both are added to something, it is less the error of
    that as well, so that the sum comes out right.

    Args:
        stop: The layer.
        batches: Which batches to look at.
        rows: At most about this many rows are looked at, the same number in each image.
        seed: Of the choice of positions.

    Returns:
        The sums over two halves of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    images = sum(len(stop.quantized_input(batch)) for batch in batches)
    each = math.ceil(rows / images)
    kernel = tuple(stop.float_weight().shape[2:])
    halves: list[Moments | None] = [None, None]
    seen = 0
    for batch in batches:
        source, wanted = stop.quantized_input(batch), stop.wanted_output(batch)
        if is_call(stop.node, LINEAR):
            inputs, outputs = _linear_rows(source, wanted, each, generator)
        else:
            form = _Form.of(stop.node, kernel)
            inputs, outputs = _convolution_rows(form, source, wanted, each, generator)
        for parity in (0, 1):
            # Every other image, counted through all batches: a batch may be a single image.
            left, right = (item[:, (parity + seen) % 2 :: 2].flatten(1, 2) for item in (inputs, outputs))
            if left.shape[1]:
                new = Moments(gram=left.mT @ left, product=right.mT @ left, rows=left.shape[1])
                old = halves[parity]
                halves[parity] = new if old is None else old + new
        seen += len(source)
    first, second = halves
    assert first is not None
    return first, first if second is None else second


def _linear_rows(
    source: torch.Tensor, wanted: torch.Tensor, each: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs (1, images, rows, K) and outputs (1, images, rows, channels) of a linear."""
    inputs, outputs = (item.reshape(1, len(item), -1, item.shape[-1]) for item in (source, wanted))
    chosen = _choose(inputs.shape[2], each, generator)
    return inputs[:, :, chosen], outputs[:, :, chosen]


def _convolution_rows(
    form: _Form, source: torch.Tensor, wanted: torch.Tensor, each: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs (groups, images, positions, K) and outputs (groups, images, positions, channels of a group)."""
    padded = F.pad(source, form.padding)
    out_size, in_size = wanted.shape[2:], padded.shape[2:]
    positions = _choose(math.prod(out_size), each, generator)
    # The flat index of every input that every chosen output position reads, (positions, kernel).
    index = torch.zeros(1, 1, dtype=torch.long)
    places = torch.unravel_index(positions, out_size)
    taps = torch.unravel_index(torch.arange(math.prod(form.kernel)), form.kernel)
    for axis, place in enumerate(places):
        at = place[:, None] * form.stride[axis] + taps[axis] * form.dilation[axis]
        index = index * in_size[axis] + at
    images, groups, count = len(source), form.groups, len(positions)
    inputs = padded.flatten(2)[:, :, index].reshape(images, groups, -1, count, len(taps[0]))
    outputs = wanted.flatten(2)[:, :, positions].reshape(images, groups, -1, count)
    return inputs.permute(1, 0, 3, 2, 4).reshape(groups, images, count, -1), outputs.permute(1, 0, 3, 2)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """The form of a convolution, spelled out for each spatial axis; ``padding`` as ``F.pad`` takes it."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @staticmethod
    def of(node: fx.Node, kernel: tuple[int, ...]) -> _Form:
        axes = len(kernel)
        stride, dilation = (
            _spread(argument(node, place, name, 1), axes) for place, name in ((3, "stride"), (5, "dilation"))
        )
        padding = argument(node, 4, "padding", 0)
        if padding == "same":
            # An odd remainder goes to the end, as torch does it.
            total = [gap * (size - 1) for gap, size in zip(dilation, kernel, strict=True)]
            sides = [(item // 2, item - item // 2) for item in total]
        else:
            sides = [(item, item) for item in _spread(0 if padding == "valid" else padding, axes)]
        return _Form(
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            padding=tuple(item for side in reversed(sides) for item in side),
            groups=argument(node, 6, "groups", 1),
        )


def _spread(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


def _choose(count: int, wanted: int, generator: torch.Generator) -> torch.Tensor:
    """Returns at most ``wanted`` of ``count`` places, in order."""
    if wanted >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:wanted].sort().values
