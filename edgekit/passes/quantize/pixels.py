"""The grid of raw pixels: a uint8 frame already is integers, so its grid is read off the graph and not observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.passes.aten import CONV, is_call, read_tensor
from edgekit.passes.quantize.grids import ASYMMETRIC, Grid
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.policy import Site, moves_only
from edgekit.targets import QuantizeRules

__all__ = ["keeps_pixels", "pixel_grid"]

_A = torch.ops.aten
Facts = dict[fx.Node, torch.Tensor]


def pixel_grid(graph: fx.GraphModule, facts: Facts, group: Sequence[Site], rules: QuantizeRules) -> Grid | None:
    """Returns the grid on which a tensor made of a uint8 input lies exactly, or None where it is on no such grid.

    The tensor is ``pixel * factor + shift`` as preprocessing writes it, with one factor for all channels and a shift of
    whole pixel levels: ``factor * (pixel - zero_point)``. Quantizing it with scale ``factor`` gives the pixel back, so
    an integer convolution can read the frame itself. That the pair changes nothing is not assumed: all 256 levels are
    put through it. :class:`edgekit.passes.fold.FoldPixels` brings other preprocessing into this form.

    Args:
        graph: Program graph with the preprocessing in it.
        facts: Shape and dtype of every node, from :func:`edgekit.passes.aten.node_facts`.
        group: Sites that are to share the grid.
        rules: The target's; None is the answer where ``raw_pixels`` is ``float`` or activations are not uint8.

    Returns:
        uint8 in [0, 255]; per tensor where all channels have one zero-point, else per channel along axis 1 with equal
        scales, and that for convolutions alone.
    """
    if rules.raw_pixels == "float" or rules.activations != "uint8-asymmetric":
        return None
    if len(group) != 1 or group[0].role != "conv":
        return None
    affine = _affine(graph, facts, group[0].node)
    if affine is None:
        return None
    factor, shift = affine.factor, affine.shift
    if not bool((factor == factor[0]).all()) or not float(factor[0]) > 0:
        return None
    levels = torch.round(-shift.double() / factor.double())
    if bool((levels < 0).any()) or bool((levels > 255).any()):
        return None
    axis = 1
    if bool((levels == levels[0]).all()):
        factor, levels, axis = factor[0], levels[0], -1
    elif not _only_convolutions(group[0].node):
        return None
    form = ASYMMETRIC
    grid = Grid(scale=factor.clone(), zero_point=levels.to(form.dtype), axis=axis, qmin=form.qmin, qmax=form.qmax)
    values = _all_levels(affine)
    return grid if torch.equal(grid.rounded(values), values) else None


def keeps_pixels(graph: fx.GraphModule, facts: Facts, pair: fx.Node) -> bool:
    """Whether a quantize-dequantize pair in a graph changes none of the 256 levels of a uint8 input: a pixel grid."""
    source, scale, zero_point, axis, qmin, qmax = pair.args
    assert isinstance(source, fx.Node)
    assert isinstance(scale, fx.Node)
    assert isinstance(zero_point, fx.Node)
    affine = _affine(graph, facts, source)
    if affine is None:
        return False
    step, zero = read_tensor(graph, scale), read_tensor(graph, zero_point)
    # The levels lie in rows here, so that channels are axis 1 as in images.
    values: torch.Tensor = _all_levels(affine)
    return torch.equal(QDQ(values, step, zero, axis, qmin, qmax), values)


def _only_convolutions(node: fx.Node) -> bool:
    """Whether convolutions alone read the values, past what only moves them, and sizes."""
    return all(
        is_call(user, {*CONV, _A.sym_size.int}) or (moves_only(user) and _only_convolutions(user))
        for user in node.users
    )


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """``pixel * factor + shift``.

    Attributes:
        factor, shift: (C,) float32, or (1,) where all channels have the same.
        multiplies, adds: Whether the graph has the operator.
    """

    factor: torch.Tensor
    shift: torch.Tensor
    multiplies: bool
    adds: bool


def _all_levels(affine: _Affine) -> torch.Tensor:
    """(256, C) float32: what the graph computes, in its own arithmetic, of every pixel level."""
    values = torch.arange(256, dtype=torch.float32)[:, None].expand(256, len(affine.factor))
    values = values * affine.factor if affine.multiplies else values
    return (values + affine.shift if affine.adds else values).contiguous()


def _affine(graph: fx.GraphModule, facts: Facts, node: fx.Node) -> _Affine | None:
    """Reads ``add(mul(permute(to(input))))`` from its end; each of add, mul and permute may be missing.

    Without the permutation to (N, C, H, W), one constant must be every channel's: its shape does not say the channel.
    """
    shift = _constant(graph, node, _A.add.Tensor)
    if shift is not None:
        node = node.all_input_nodes[0]
    factor = _constant(graph, node, _A.mul.Tensor)
    if factor is not None:
        node = node.all_input_nodes[0]
    if is_call(node, {_A.permute.default}) and list(_list(node.args[1])) == [0, 3, 1, 2]:
        node = node.all_input_nodes[0]
    elif any(item is not None and item.numel() > 1 for item in (factor, shift)):
        return None
    source = node.args[0] if is_call(node, {_A.to.dtype}) and node.args[1] is torch.float32 else None
    if not isinstance(source, fx.Node) or source.op != "placeholder" or facts[source].dtype is not torch.uint8:
        return None
    channels = max(1 if item is None else item.numel() for item in (factor, shift))
    return _Affine(
        factor=torch.ones(channels) if factor is None else factor.expand(channels),
        shift=torch.zeros(channels) if shift is None else shift.expand(channels),
        multiplies=factor is not None,
        adds=shift is not None,
    )


def _constant(graph: fx.GraphModule, node: fx.Node, operator: object) -> torch.Tensor | None:
    """The constant per channel, (C,) or (1,) float32, that ``operator`` combines its first argument with."""
    if node.op != "call_function" or node.target is not operator or len(node.args) != 2 or node.kwargs:
        return None
    value, constant = node.args
    if not isinstance(value, fx.Node) or not isinstance(constant, fx.Node) or constant.op != "get_attr":
        return None
    tensor = read_tensor(graph, constant).detach()
    if tensor.dtype is not torch.float32 or tensor.numel() != (tensor.shape[1] if tensor.ndim == 4 else 1):
        return None
    return tensor.reshape(-1)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
