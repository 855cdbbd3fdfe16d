"""Which nodes of a portable graph OpenVINO's device can run, node by node."""

from __future__ import annotations

from typing import Any

import onnx

from edgekit.backends.base import PortableGraph, Verdict
from edgekit.backends.openvino.library import openvino
from edgekit.backends.openvino.naming import owners
from edgekit.backends.openvino.refusal import Refusal, explain_refusal

__all__ = ["node_name", "node_verdicts"]


def node_name(node: onnx.NodeProto) -> str:
    """Returns the node's name, or its first output's where it has none."""
    return str(node.name if node.name else node.output[0])


def node_verdicts(graph: PortableGraph, device: str) -> tuple[Verdict, ...]:
    """Asks OpenVINO's reader about every node, and the device where it is on this machine.

    Args:
        graph: The portable graph.
        device: ``CPU``, ``GPU`` or ``NPU``.

    Returns:
        One verdict per ONNX node, in the graph's order.

    Raises:
        BackendMissing: OpenVINO is not installed.
    """
    proto = onnx.load_from_string(graph.data)
    core = openvino().Core()
    try:
        model = core.read_model(graph.data)
    except RuntimeError as error:
        refusal = explain_refusal(str(error))
        reasons = {node_name(node): _refused(node, refusal) for node in proto.graph.node}
        if not any(reasons.values()):
            reasons = dict.fromkeys(reasons, f"the graph is refused as a whole: {refusal.summary}")
        note = ""
    else:
        here = any(name.split(".")[0] == device for name in core.available_devices)
        reasons = _asked(core, model, proto.graph, device) if here else {}
        note = "" if here else f"read by OpenVINO; no {device} on this machine to ask"
    verdicts = []
    for node in proto.graph.node:
        name = node_name(node)
        reason = reasons.get(name, "")
        verdicts.append(
            Verdict(node=name, operator=node.op_type, supported=not reason, reason=reason if reason else note)
        )
    return tuple(verdicts)


def _refused(node: onnx.NodeProto, refusal: Refusal) -> str:
    if node.op_type in refusal.operators:
        return f"OpenVINO has no translation for {node.op_type}"
    return refusal.nodes.get(node_name(node), "")


def _asked(core: Any, model: Any, graph: onnx.GraphProto, device: str) -> dict[str, str]:
    """Returns the ONNX nodes that contain an operation which the device does not take, with the reason."""
    accepted = core.query_model(model, device)
    by_output = {output: node_name(node) for node in graph.node for output in node.output}
    reasons: dict[str, str] = {}
    served = owners(model)
    for operation in model.get_ordered_ops():
        if operation.get_friendly_name() not in accepted:
            owner = served[operation.get_name()]
            reasons[by_output.get(owner, owner)] = f"{device} does not take {operation.get_type_name()}"
    return reasons
