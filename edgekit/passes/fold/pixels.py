"""Folds mean and std into the first convolution, so that an int8 engine reads the raw frame without a float pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import (
    argument,
    beside,
    clean,
    is_call,
    layer_name,
    read_tensor,
    set_argument,
    store_buffer,
    store_parameter,
)
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.fold.exactness import BORDER_LEVELS, measure_exactness, taps_outside
from edgekit.passes.fold.stem import NoStem, Stem, find_stem
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record, Skipped
from edgekit.targets import QuantizeRules

__all__ = ["FoldPixels"]

_A = torch.ops.aten
_COLUMN = (1, -1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class FoldPixels:
    """The first convolution reads ``step * (pixel - level)``: a power of two and whole levels, not mean and std.

    ``level`` is the mean rounded to a pixel level, ``step`` one power of two near the factors ``scale / std``. What is
    left goes into the convolution: ``factor / step`` into its weight, by input channel, the colour order too, and the
    mean's remainder, at most half a level, into its bias. A tensor of this form lies exactly on a uint8 grid of scale
    ``step`` and zero-point ``level`` (:func:`edgekit.passes.quantize.pixels.pixel_grid`), so an integer convolution
    reads the frame itself. The power of two keeps the arithmetic exact, and the weight as large as it was trained.

    The convolution pads with zeros, which stood for the mean and now stand for ``level``. So the fold is exact where
    no padding is read, and elsewhere as if each padded pixel were off by the mean's remainder.

    Whether it came out so is measured (:mod:`edgekit.passes.fold.exactness`). Where it did not, where the first layer
    in int8 would lose more by its weight than it gains by exact pixels, or where the graph begins with something else,
    the program stays as it was, and the record says why.

    Attributes:
        rules: The target's; ``raw_pixels``, ``activations`` and ``weight_bits`` are read.
    """

    rules: QuantizeRules
    name: str = "fold-pixels"

    def check(self, program: Program) -> None:
        for node in program.graph.graph.nodes:
            if is_call(node, {QDQ}):
                raise UserError(
                    f"'{program.name}' is quantized already ('{node.name}')", hint="fold the pixels before quantizing"
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        reason = self._why_not(program)
        if reason is not None:
            return self._left(program, "input", reason)
        try:
            stem = find_stem(program.graph)
        except NoStem as error:
            return self._left(program, "input", str(error))
        where = layer_name(stem.conv)
        affine = _affine(program.graph, stem)
        reason = _why_not_padded(program, stem, affine)
        if reason is not None:
            return self._left(program, where, reason)
        after = program.copied()
        new_stem = _rewrite(after.graph, find_stem(after.graph), affine)
        found = measure_exactness((program, stem), (after, new_stem), weight_bits=self.rules.weight_bits)
        details = {"step": affine.step, "levels": [int(item) for item in affine.level], **found.details()}
        reason = found.why_not()
        if reason is not None:
            return self._left(program, where, reason, details)
        border = "" if found.border_rel_l2 is None else f", padded to within {found.border_levels:.2f} pixel levels"
        record = Record(
            stage=self.name,
            summary=f"'{where}' reads raw pixels: mean and std are in its weight and bias{border}",
            changed=1,
            details=details,
        )
        return PassResult(program=after.recorded(record))

    def _why_not(self, program: Program) -> str | None:
        if self.rules.raw_pixels == "float":
            return "the target's first layer reads normalised pixels"
        if self.rules.activations != "uint8-asymmetric":
            return f"pixels are uint8 with a zero-point, the target's activations are {self.rules.activations}"
        if len(program.inputs) != 1:
            return f"the model has {len(program.inputs)} inputs, expected one picture"
        if program.inputs[0].dtype != "uint8":
            return f"the input is {program.inputs[0].dtype}, expected uint8 pixels"
        return None

    def _left(self, program: Program, where: str, why: str, details: Mapping[str, Any] | None = None) -> PassResult:
        record = Record(
            stage=self.name,
            summary="the first layer reads normalised pixels",
            skipped=(Skipped(what="raw pixels", where=where, why=why),),
            details={} if details is None else details,
        )
        return PassResult(program=program.copied().recorded(record))


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """``factor * (pixel - level - remainder)``: what the preprocessing computes, in float64.

    Channels are in the frame's order.

    Attributes:
        factor: (C,) positive.
        step: The power of two nearest to the factors, in the geometric mean.
        level: (C,) whole, 0 to 255.
        remainder: (C,) in pixel levels.
    """

    factor: torch.Tensor
    step: float
    level: torch.Tensor
    remainder: torch.Tensor


def _affine(graph: fx.GraphModule, stem: Stem) -> _Affine:
    channels = read_tensor(graph, stem.weight).shape[1]
    factor, shift = (
        torch.full((channels,), neutral, dtype=torch.float64)
        if node is None
        else read_tensor(graph, node).detach().double().flatten().expand(channels)
        for node, neutral in ((stem.factor, 1.0), (stem.shift, 0.0))
    )
    if stem.flip is not None:
        factor, shift = factor.flip(0), shift.flip(0)
    mean = -shift / factor
    level = mean.round().clamp(0, 255)
    step = 2.0 ** round(float(factor.log2().mean()))
    return _Affine(factor=factor, step=step, level=level, remainder=mean - level)


def _why_not_padded(program: Program, stem: Stem, affine: _Affine) -> str | None:
    """A mean far from every pixel level cannot be what the padding says."""
    height, width = (size for size in program.inputs[0].shape[1:3] if size is not None)
    worst = int(affine.remainder.abs().argmax())
    off = float(affine.remainder[worst].abs())
    # Above the bound by more than its rounding: a mean outside [0, 255].
    if off <= BORDER_LEVELS + 1e-3 or not bool(
        taps_outside(stem, read_tensor(program.graph, stem.weight), (height, width)).any()
    ):
        return None
    mean = float(affine.level[worst] + affine.remainder[worst])
    return (
        f"its padding stands for the mean, {mean:.1f} pixel levels in channel {worst}, and the nearest that uint8 "
        f"can say is {off:.1f} levels off; allowed is {BORDER_LEVELS}"
    )


def _rewrite(graph: fx.GraphModule, stem: Stem, affine: _Affine) -> Stem:
    readers = list(stem.value.users)
    # A gray frame's arithmetic goes before the permutation: OpenVINO makes a reshape of it there, and integers would
    # not get past. In colour the channels' constants stay where they were.
    cast = stem.picture.args[0]
    assert isinstance(cast, fx.Node)
    value = before = cast if len(affine.level) == 1 else stem.picture
    attributes: list[fx.Node | None] = []
    for name, operator, constant, neutral in (
        ("pixel_factor", _A.mul.Tensor, torch.full_like(affine.level, affine.step), 1.0),
        ("pixel_shift", _A.add.Tensor, -affine.step * affine.level, 0.0),
    ):
        if bool((constant == neutral).all()):
            attributes.append(None)
            continue
        store_buffer(graph, name, constant.float().reshape(_COLUMN))
        with graph.graph.inserting_after(value):
            attribute = graph.graph.get_attr(name)
        with graph.graph.inserting_after(attribute):
            value = graph.graph.call_function(operator, (value, attribute))
        attributes.append(attribute)
    if before is cast:
        stem.picture.replace_input_with(cast, value)
        value = stem.picture
    for reader in readers:  # the convolution or its padding, and sizes
        reader.replace_input_with(stem.value, value)
    # In float64: folding must not cost the accuracy that is measured next.
    weight = read_tensor(graph, stem.weight).detach().double()
    weight = weight if stem.flip is None else weight.flip(1)
    store_parameter(graph, str(stem.weight.target), (weight * (affine.factor / affine.step).reshape(_COLUMN)).float())
    moved = -(weight.sum((2, 3)) * affine.factor * affine.remainder).sum(1)
    if bool((moved != 0).any()):
        _add_to_bias(graph, stem, moved)
    clean(graph)
    factor, shift = attributes
    return replace(stem, flip=None, factor=factor, shift=shift, value=value)


def _add_to_bias(graph: fx.GraphModule, stem: Stem, moved: torch.Tensor) -> None:
    conv, bias = stem.conv, argument(stem.conv, 2, "bias")
    old = read_tensor(graph, bias).detach().double() if isinstance(bias, fx.Node) else torch.zeros_like(moved)
    # A name of the layer's own: its old bias may be another layer's too.
    name = beside(str(stem.weight.target), f"{conv.name}_bias")
    store_parameter(graph, name, (old + moved).float())
    with graph.graph.inserting_before(conv):
        attribute = graph.graph.get_attr(name)
    conv.kwargs = {key: item for key, item in conv.kwargs.items() if key != "bias"}
    set_argument(conv, 2, attribute)
