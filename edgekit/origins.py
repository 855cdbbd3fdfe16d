"""Where in a model's source the nodes of an exported graph come from, as far as torch.export kept it."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import onnx
import torch
from torch import fx

from edgekit.backends.base import Origin

__all__ = ["carry_origins", "read_origins"]

# What a program's nodes know of their origin, and under which key the ONNX exporter passes it on.
_KEPT = {"source": "stack_trace", "nn_module_stack": "nn_module_stack"}
# Calls that the exporter adds, drops or spells otherwise: casts, and checks of types around them.
_ITS_OWN = frozenset(
    {torch.ops.aten.to.dtype, torch.ops.aten._to_copy.default, torch.ops.aten._assert_tensor_metadata.default}
)
_SOURCE, _SCOPES = "pkg.torch.onnx.stack_trace", "pkg.torch.onnx.name_scopes"


def carry_origins(graph: fx.GraphModule, exported: fx.Graph) -> None:
    """Gives the nodes of a graph that was exported anew what the nodes that they were made of know of their origin.

    The two are the same calls in the same order, but for casts. Where they are not, nothing is carried: no origin
    is better than a wrong one.
    """
    before, after = (
        [node for node in item.nodes if node.op == "call_function" and node.target not in _ITS_OWN]
        for item in (graph.graph, exported)
    )
    for node in exported.nodes:
        for passed_on in _KEPT.values():
            node.meta.pop(passed_on, None)
    if [node.target for node in before] != [node.target for node in after]:
        return
    for old, new in zip(before, after, strict=True):
        for kept, passed_on in _KEPT.items():
            if kept in old.meta:
                new.meta[passed_on] = old.meta[kept]


def read_origins(model: onnx.ModelProto) -> dict[str, Origin]:
    """Returns the origin of each node whose metadata tell one, by the node's name."""
    found = {}
    for node in model.graph.node:
        facts = {item.key: item.value for item in node.metadata_props}
        origin = Origin(module=_module(facts), source=facts.get(_SOURCE, ""))
        if node.name and origin != Origin():
            found[node.name] = origin
    return found


def _module(facts: Mapping[str, str]) -> str:
    try:
        scopes = ast.literal_eval(facts.get(_SCOPES, "[]"))
    except (SyntaxError, ValueError):
        return ""
    # The last scope is the node itself.
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""
