"""How operators compute where every tensor that a half graph names is float16: emulated in float32, rounded by step.

A float32 kernel on float16 inputs, rounded once, is what hardware with float32 accumulators gives. Operators that the
graph spells out, or that an engine may compute in the type of their inputs, are rounded after each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import RECURRENT, argument, is_call, operator_name

__all__ = ["LARGEST", "Step", "computed_in_half", "inner_peak", "rounded", "rounded_scalars"]

_A = torch.ops.aten
Arguments = tuple[Any, ...]

LARGEST = 65504.0
"""float16's largest value. Source: IEEE 754-2019, binary16: (2 - 2^-10) 2^15."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The largest value inside an operator, beyond what goes in and comes out.

    Attributes:
        peak: Its absolute value.
        what: Which value it is, for people.
    """

    peak: float
    what: str


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """Rounds float32 values to float16 ones; beyond its largest they become infinite. Others stay as they are."""
    return tensor.half().float() if tensor.dtype == torch.float32 else tensor


# Their scalars are constants of the half graph, in the type of the tensor beside them.
_SCALAR_OPERATORS = frozenset(
    {
        *("add", "sub", "rsub", "mul", "div", "pow", "masked_fill", "leaky_relu", "elu"),
        *("clamp", "clamp_min", "clamp_max", "hardtanh"),
    }
)


def rounded_scalars(node: fx.Node, arguments: Arguments) -> Arguments:
    """Rounds the scalars of arithmetic operators to float16, as the exported graph holds them."""
    if operator_name(node) not in _SCALAR_OPERATORS:
        return arguments
    return tuple(
        float(torch.tensor(item).half()) if isinstance(item, float) and math.isfinite(item) else item
        for item in arguments
    )


def computed_in_half(node: fx.Node, arguments: Arguments, keywords: Mapping[str, Any]) -> Any:
    """Computes a node as a half graph does, from inputs that are already rounded.

    Args:
        node: A call.
        arguments, keywords: What it is called with: float32 tensors with float16 values.

    Returns:
        float32 tensors with float16 values, in the form of the operator's result.

    Raises:
        RuntimeError: torch has no float16 kernel for a recurrent layer.
    """
    assert callable(node.target)
    own = _STEPS.get(operator_name(node))
    if own is not None and not keywords.get("enable_gqa"):
        result = own(node, arguments, keywords)
        if result is not None:
            return result
    if is_call(node, RECURRENT):
        # Its state is rounded at every step of the sequence, which no rounding around it shows.
        halves = _mapped(arguments, lambda item: item.half() if item.dtype == torch.float32 else item)
        return _mapped(node.target(*halves, **keywords), lambda item: item.float())
    return _mapped(node.target(*arguments, **keywords), rounded)


def inner_peak(node: fx.Node, arguments: Arguments, keywords: Mapping[str, Any], result: Any) -> Step | None:
    """Returns the largest sum that an operator forms inside, in float32; None where it forms none.

    A sum is taken at its full size, since no engine promises a wider accumulator than its inputs: for normalizations
    TensorRT's compute precision follows the types of the inputs (``INormalizationLayer::setComputePrecision`` is
    deprecated from 10.16 and gone in 11). Matrix products and convolutions are not counted: tensor cores add products
    of halves in float32 where the kernel asks for it, and to know better would take a second product for each.

    Args:
        node: A call.
        arguments, keywords: The float32 program's values.
        result: What it gave.
    """
    name = operator_name(node)
    if name in _NORMS:
        parts = _norm_parts(name, node, arguments, keywords)
        if parts is None:
            return None
        x, axes = parts
        centred = x if name == "rms_norm" else x - x.mean(axes, keepdim=True)
        return Step(peak=float(torch.linalg.vector_norm(centred, dim=axes).max()) ** 2, what="its sum of squares")
    if not isinstance(result, torch.Tensor) or not result.is_floating_point() or result.numel() == 0:
        return None
    source = arguments[0] if arguments and isinstance(arguments[0], torch.Tensor) else None
    if source is None:
        return None
    if name in ("mean", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "avg_pool2d"):
        count = source.numel() // result.numel()
        if name == "avg_pool2d":
            count = math.prod(argument(node, 1, "kernel_size"))
        return Step(peak=float(result.abs().max()) * count, what=f"its sum of {count} values")
    if name in ("var", "std"):
        variance = result if name == "var" else result.square()
        return Step(peak=float(variance.max()) * (source.numel() // result.numel()), what="its sum of squares")
    if name == "linalg_vector_norm" and argument(node, 1, "ord", 2) == 2:
        return Step(peak=float(result.max()) ** 2, what="its sum of squares")
    if name == "scaled_dot_product_attention":
        query, key = arguments[0], arguments[1]
        scale = _scale(query, keywords)
        return Step(peak=float((query @ key.transpose(-2, -1)).abs().max()) * scale, what="a query times a key")
    return None


_NORMS = frozenset({"layer_norm", "group_norm", "instance_norm", "rms_norm"})


def _norm_parts(
    name: str, node: fx.Node, arguments: Arguments, keywords: Mapping[str, Any]
) -> tuple[torch.Tensor, list[int]] | None:
    """A normalization's input in a form, and the axes of it, over which its statistics are; None where it has none."""
    x = arguments[0]
    if name in ("layer_norm", "rms_norm"):
        return x, list(range(x.ndim - len(arguments[1]), x.ndim))
    if name == "group_norm":
        return x.reshape(x.shape[0], arguments[1], -1), [2]
    uses_input = argument(node, 5, "use_input_stats", True)
    return (x, list(range(2, x.ndim))) if uses_input else None


def _norm(node: fx.Node, arguments: Arguments, keywords: Mapping[str, Any]) -> torch.Tensor | None:
    """A normalization by its definition, rounded after each step: TensorRT computes it in the type of its inputs."""
    name = operator_name(node)
    parts = _norm_parts(name, node, arguments, keywords)
    if parts is None:
        return None
    x, axes = parts
    at = {"layer_norm": (2, 4), "rms_norm": (2, 3), "group_norm": (2, 4), "instance_norm": (1, 7)}[name]
    values = [*arguments, *([None] * (at[1] + 1 - len(arguments)))]
    weight = values[at[0]] if values[at[0]] is not None else keywords.get("weight")
    bias = None if name == "rms_norm" else values[at[0] + 1]
    bias = bias if bias is not None else keywords.get("bias")
    eps = values[at[1]] if values[at[1]] is not None else keywords.get("eps")
    if eps is None:
        eps = torch.finfo(torch.float16).eps if name == "rms_norm" else 1e-5
    centred = x if name == "rms_norm" else rounded(x - rounded(x.mean(axes, keepdim=True)))
    variance = rounded(rounded(centred.square()).mean(axes, keepdim=True))
    spread = rounded(rounded(variance + float(torch.tensor(eps).half())).sqrt())
    value = rounded(centred / spread).reshape(arguments[0].shape)
    per_channel = [1, -1, *([1] * (arguments[0].ndim - 2))]
    for parameter, combine in ((weight, torch.mul), (bias, torch.add)):
        if parameter is not None:
            shaped = parameter if name in ("layer_norm", "rms_norm") else parameter.reshape(per_channel)
            value = rounded(combine(value, shaped))
    return value


def _attention(node: fx.Node, arguments: Arguments, keywords: Mapping[str, Any]) -> torch.Tensor:
    """Attention as ONNX spells it: both sides scaled, product, mask, softmax, product."""
    query, key, value, mask, _, causal = [*arguments, *([None] * (6 - len(arguments)))][:6]
    mask = mask if mask is not None else keywords.get("attn_mask")
    causal = causal if causal is not None else keywords.get("is_causal", False)
    root = math.sqrt(_scale(query, keywords))
    logits = rounded(rounded(query * root) @ rounded(key * root).transpose(-2, -1))
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else rounded(logits + mask)
    return rounded(rounded(logits.softmax(-1)) @ value)


def _scale(query: torch.Tensor, keywords: Mapping[str, Any]) -> float:
    scale = keywords.get("scale")
    return 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Changes every float tensor of a nested value."""
    if isinstance(value, torch.Tensor):
        return change(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(item, change) for item in value)
    return value


_STEPS: Mapping[str, Callable[[fx.Node, Arguments, Mapping[str, Any]], torch.Tensor | None]] = MappingProxyType(
    {**dict.fromkeys(_NORMS, _norm), "scaled_dot_product_attention": _attention}
)
