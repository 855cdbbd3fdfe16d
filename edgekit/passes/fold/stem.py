"""Finds the first layer: the nodes from the raw picture to the convolution that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import Operators, argument, is_call, layer_name, read_tensor

__all__ = ["NoStem", "Stem", "find_stem"]

_A = torch.ops.aten
_CONV2D: Operators = frozenset({_A.conv2d.default, _A.conv2d.padding})
_PAD: Operators = frozenset({_A.pad.default, _A.constant_pad_nd.default})


class NoStem(Exception):
    """The graph does not begin with preprocessing and one convolution; says what stands there instead."""


@dataclass(frozen=True, kw_only=True)
class Stem:
    """The nodes from the picture to the first convolution.

    Attributes:
        picture: (N, C, H, W) float32, raw pixels.
        flip: An index that turns the colour order round, before the arithmetic; None where the weight does it.
        factor, shift: The preprocessing's constants, (1, C, 1, 1) or one value; None where it has none.
        value: What the convolution, or the padding before it, reads: ``picture * factor + shift``.
        pad: An operator of its own that pads with zeros, or None.
        conv: The first convolution. It alone reads the picture and owns its weight.
    """

    picture: fx.Node
    flip: fx.Node | None
    factor: fx.Node | None
    shift: fx.Node | None
    value: fx.Node
    pad: fx.Node | None
    conv: fx.Node

    @property
    def weight(self) -> fx.Node:
        """The attribute of the convolution's weight."""
        weight = self.conv.args[1]
        assert isinstance(weight, fx.Node)  # find_stem has looked
        return weight

    def layer(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The padding and the convolution, without its bias, with another weight.

        Args:
            x: (N, C, H, W), any float type.
            weight: Shaped as the convolution's, of the type of ``x``.
        """
        with torch.no_grad():
            if self.pad is not None:
                x = _call(self.pad, (x, *self.pad.args[1:]), self.pad.kwargs)
            options = {key: value for key, value in self.conv.kwargs.items() if key != "bias"}
            return _call(self.conv, (x, weight, None, *self.conv.args[3:]), options)


def find_stem(graph: fx.GraphModule) -> Stem:
    """Follows the picture, past sizes that are read of it, to the first convolution.

    Raises:
        NoStem: Something else stands there.
    """
    node = next(item for item in graph.graph.nodes if item.op == "placeholder")
    node = _only_reader(node, {_A.to.dtype}, "a cast to float32")
    if node.args[1] is not torch.float32:
        raise NoStem(f"'{node.name}' casts the picture to {node.args[1]}, expected float32")
    picture = _only_reader(node, {_A.permute.default}, "a permutation to (N, C, H, W)")
    flip = _readers(picture)[0] if len(_readers(picture)) == 1 and _turns_colours(_readers(picture)[0]) else None
    value, factor = _arithmetic(graph, picture if flip is None else flip, _A.mul.Tensor)
    if factor is not None and not bool((read_tensor(graph, factor) > 0).all()):
        raise NoStem(f"'{value.name}' scales the picture by a factor that is not positive")
    value, shift = _arithmetic(graph, value, _A.add.Tensor)
    reader = _only_reader(value, {*_CONV2D, *_PAD}, "a convolution")
    pad = None if is_call(reader, _CONV2D) else reader
    if pad is not None:
        if not _pads_zeros(pad):
            raise NoStem(f"'{pad.name}' before the first convolution does not pad with zeros")
        reader = _only_reader(pad, _CONV2D, "a convolution")
    _check_layer(reader)
    return Stem(picture=picture, flip=flip, factor=factor, shift=shift, value=value, pad=pad, conv=reader)


def _arithmetic(graph: fx.GraphModule, value: fx.Node, operator: Any) -> tuple[fx.Node, fx.Node | None]:
    """Steps over ``operator`` with a constant per channel, where it alone reads ``value``."""
    readers = _readers(value)
    if len(readers) != 1 or not is_call(readers[0], {operator}) or len(readers[0].args) != 2 or readers[0].kwargs:
        return value, None
    constant = readers[0].args[1]
    if readers[0].args[0] is not value or not isinstance(constant, fx.Node) or constant.op != "get_attr":
        return value, None
    tensor = read_tensor(graph, constant)
    per_channel = tensor.ndim == 4 and tensor.numel() == tensor.shape[1]
    return (readers[0], constant) if per_channel or tensor.numel() == 1 else (value, None)


def _check_layer(conv: fx.Node) -> None:
    weight = conv.args[1]
    if argument(conv, 6, "groups", 1) != 1:
        raise NoStem(f"the first convolution '{layer_name(conv)}' has groups")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        raise NoStem(f"the weight of the first convolution '{conv.name}' is computed")
    same = [item for item in conv.graph.nodes if item.op == "get_attr" and item.target == weight.target]
    if len([user for item in same for user in item.users]) > 1:
        raise NoStem(f"the weight of the first convolution '{layer_name(conv)}' is shared")


def _readers(node: fx.Node) -> list[fx.Node]:
    return [user for user in node.users if not is_call(user, {_A.sym_size.int})]


def _only_reader(node: fx.Node, operators: Operators, expected: str) -> fx.Node:
    readers = _readers(node)
    if len(readers) != 1:
        raise NoStem(f"{len(readers)} operators ({_names(readers)}) read the picture, expected {expected} alone")
    if not is_call(readers[0], operators):
        raise NoStem(f"'{readers[0].name}' reads the picture, expected {expected}")
    return readers[0]


def _names(nodes: Sequence[fx.Node]) -> str:
    return ", ".join(f"'{item.name}'" for item in nodes[:4]) + (", ..." if len(nodes) > 4 else "")


def _turns_colours(node: fx.Node) -> bool:
    return is_call(node, {_A.flip.default}) and list(argument(node, 1, "dims", ())) == [1]


def _pads_zeros(node: fx.Node) -> bool:
    if is_call(node, {_A.pad.default}):
        return str(argument(node, 2, "mode", "constant")) == "constant" and argument(node, 3, "value") in (None, 0)
    return bool(argument(node, 2, "value", 0) == 0)


def _call(node: fx.Node, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> torch.Tensor:
    assert callable(node.target)
    result: torch.Tensor = node.target(*arguments, **keywords)
    return result
