"""Which nodes of a portable graph the target's TensorRT release takes, by rule: no library is needed."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from edgekit.backends.base import PortableGraph, Verdict
from edgekit.backends.tensorrt.operators import OPERATORS, TENSORRT_TYPES
from edgekit.backends.tensorrt.restrictions import GraphFacts, gather_facts, restriction
from edgekit.targets import Portable

__all__ = ["graph_verdicts"]

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear", "Constant")
_CASTS = ("Cast", "CastLike")


def graph_verdicts(graph: PortableGraph, portable: Portable, release: tuple[int, int]) -> tuple[Verdict, ...]:
    """Judges a graph for strongly typed networks of one TensorRT release.

    Args:
        graph: The portable graph.
        portable: The target's limits on opset and IR version.
        release: TensorRT's ``(major, minor)``.

    Returns:
        One verdict per ONNX node, in the graph's order; refusals of the graph's format or interface come before them,
        with the name of the input or output, or ``graph``.
    """
    model = onnx.load_from_string(graph.data)
    facts = gather_facts(model)
    verdicts = [*_format(model, portable), *_interface(model.graph)]
    for node in model.graph.node:
        reason = _judge(node, facts, release)
        name = node.name if node.name else node.output[0]
        verdicts.append(Verdict(node=name, operator=node.op_type, supported=not reason, reason=reason))
    return tuple(verdicts)


def _format(model: onnx.ModelProto, portable: Portable) -> list[Verdict]:
    found = []
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx") and item.version > portable.opset:
            found.append(f"opset {item.version}, at most {portable.opset} is taken")
    if model.ir_version > portable.ir_version:
        found.append(f"ONNX IR version {model.ir_version}, at most {portable.ir_version} is taken")
    return [Verdict(node="graph", operator="Model", supported=False, reason=reason) for reason in found]


def _interface(graph: onnx.GraphProto) -> list[Verdict]:
    verdicts = []
    taken = TENSORRT_TYPES - {TensorProto.INT8}
    for kind, values in (("Input", graph.input), ("Output", graph.output)):
        for value in values:
            type_ = int(value.type.tensor_type.elem_type)
            if type_ not in taken:
                reason = f"type {_type_name(type_)}: TensorRT networks take {_listed(taken)}"
                verdicts.append(Verdict(node=value.name, operator=kind, supported=False, reason=reason))
    return verdicts


def _judge(node: onnx.NodeProto, facts: GraphFacts, release: tuple[int, int]) -> str:
    if node.domain not in ("", "ai.onnx"):
        return f"an operator of domain '{node.domain}'"
    if node.op_type not in OPERATORS:
        return f"TensorRT {_dotted(release)} has no {node.op_type}"
    operator = OPERATORS[node.op_type]
    if operator.since > release:
        return f"{node.op_type} came with TensorRT {_dotted(operator.since)}, the target has {_dotted(release)}"
    counted = node.input[operator.data] if operator.data < len(node.input) else node.output[0]
    found = facts.types.get(counted)
    if found is not None and found not in operator.types:
        return f"type {_type_name(found)}: {node.op_type} takes {_listed(operator.types)}"
    for value in [*node.input, *node.output]:
        problem = _foreign(node.op_type, facts.types.get(value))
        if problem:
            return f"value '{value}': {problem}"
    return restriction(node, facts)


def _foreign(operator: str, found: int | None) -> str:
    if found is None:
        return ""
    if found not in TENSORRT_TYPES:
        return f"TensorRT has no type {_type_name(found)}"
    if found == TensorProto.UINT8 and operator not in (*_CASTS, *_QUANTIZING):
        return "uint8 is taken only at the network's border, and there only by a Cast"
    if found == TensorProto.INT8 and operator not in _QUANTIZING:
        return "int8 exists only between QuantizeLinear and DequantizeLinear"
    return ""


def _type_name(type_: int) -> str:
    return str(TensorProto.DataType.Name(type_)).lower()


def _listed(types: frozenset[int]) -> str:
    return ", ".join(_type_name(item) for item in sorted(types))


def _dotted(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"
