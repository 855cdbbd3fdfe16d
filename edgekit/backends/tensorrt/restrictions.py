"""What TensorRT's parser refuses of operators that it otherwise takes: one small check for each rule.

Source: onnx-tensorrt, ``docs/operators.md`` of release 10.6, column "Restrictions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["GraphFacts", "gather_facts", "restriction"]


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What is known about the values of a graph.

    Attributes:
        types: Value name to ``TensorProto`` type, where known.
        ranks: Value name to rank, where known.
        constants: Value name to initializer or Constant.
    """

    types: Mapping[str, int]
    ranks: Mapping[str, int]
    constants: Mapping[str, onnx.TensorProto]


def gather_facts(model: onnx.ModelProto) -> GraphFacts:
    """Infers types and ranks of every value, as far as ONNX's shape inference gets."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    types = {name: int(item.data_type) for name, item in constants.items()}
    ranks = {name: len(item.dims) for name, item in constants.items()}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.UNDEFINED:
            types[value.name] = int(tensor.elem_type)
        if tensor.HasField("shape"):
            ranks[value.name] = len(tensor.shape.dim)
    return GraphFacts(types=types, ranks=ranks, constants=constants)


def restriction(node: onnx.NodeProto, facts: GraphFacts) -> str:
    """Returns why the parser refuses this use of the operator, or an empty string."""
    check = _CHECKS.get(node.op_type)
    return check(node, facts) if check is not None else ""


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _input(node: onnx.NodeProto, index: int) -> str:
    return str(node.input[index]) if index < len(node.input) else ""


def _quantize(node: onnx.NodeProto, facts: GraphFacts) -> str:
    scale, zero = _input(node, 1), _input(node, 2)
    if scale not in facts.constants:
        return "the scale must be a constant"
    if not zero:
        uint8 = node.op_type == "QuantizeLinear"
        return "without a zero-point ONNX quantizes to uint8; give an int8 zero" if uint8 else ""
    if zero not in facts.constants:
        return "the zero-point must be a constant"
    stored = facts.constants[zero]
    if stored.data_type != TensorProto.INT8:
        found = TensorProto.DataType.Name(stored.data_type).lower()
        return f"quantized type {found}: only int8 is taken (TensorRT-RTX reads uint8 as int8, with a mere warning)"
    if np.any(numpy_helper.to_array(stored)):
        return "the zero-point must be 0: TensorRT quantizes symmetrically"
    if node.op_type == "QuantizeLinear" and int(np.prod(facts.constants[scale].dims)) > 1:
        return "activations have one scale per tensor, found one per channel"
    return ""


def _pool(node: onnx.NodeProto, facts: GraphFacts) -> str:
    rank = facts.ranks.get(node.input[0])
    if rank is not None and rank not in (4, 5):
        return f"pooling over 2 or 3 dimensions only, found {rank - 2}"
    if any(value != 1 for value in _attribute(node, "dilations", [])):
        return "dilated pooling"
    return "the indices output" if len(node.output) > 1 and node.output[1] else ""


def _first_output_only(node: onnx.NodeProto, facts: GraphFacts) -> str:
    return "only the first output exists" if any(node.output[1:]) else ""


def _constant_axes(node: onnx.NodeProto, facts: GraphFacts) -> str:
    axes = _input(node, 1)
    return "the axes must be constant" if axes and axes not in facts.constants else ""


def _resize(node: onnx.NodeProto, facts: GraphFacts) -> str:
    allowed = {
        "mode": ("nearest", ("nearest", "linear")),
        "coordinate_transformation_mode": (
            "half_pixel",
            ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
        ),
        "nearest_mode": ("round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        "keep_aspect_ratio_policy": ("stretch", ("stretch",)),
        "antialias": (0, (0,)),
    }
    for name, (default, known) in allowed.items():
        found = _attribute(node, name, default)
        if found not in known:
            return f"{name} = {found}"
    return ""


def _lstm(node: onnx.NodeProto, facts: GraphFacts) -> str:
    for name in ("input_forget", "layout"):
        if _attribute(node, name, 0) != 0:
            return f"{name} must be 0"
    return ""


def _dropout(node: onnx.NodeProto, facts: GraphFacts) -> str:
    training = _input(node, 2)
    if not training:
        return ""
    if training not in facts.constants or bool(np.any(numpy_helper.to_array(facts.constants[training]))):
        return "training_mode must be a constant false"
    return ""


def _no_reduction(node: onnx.NodeProto, facts: GraphFacts) -> str:
    return "reduction" if _attribute(node, "reduction", "none") != "none" else ""


def _sorted(node: onnx.NodeProto, facts: GraphFacts) -> str:
    return "sorted must be 1" if _attribute(node, "sorted", 1) != 1 else ""


_Check = Callable[[onnx.NodeProto, GraphFacts], str]
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_CHECKS: Mapping[str, _Check] = MappingProxyType(
    {
        "AveragePool": _pool,
        "BatchNormalization": _first_output_only,
        "CumSum": _constant_axes,
        "DequantizeLinear": _quantize,
        "Dropout": _dropout,
        "LSTM": _lstm,
        "LayerNormalization": _first_output_only,
        "LpPool": _pool,
        "MaxPool": _pool,
        "QuantizeLinear": _quantize,
        "Resize": _resize,
        "ScatterND": _no_reduction,
        "Squeeze": _constant_axes,
        "TopK": _sorted,
        "Unsqueeze": _constant_axes,
    }
    | {f"Reduce{name}": _constant_axes for name in _REDUCTIONS}
)
