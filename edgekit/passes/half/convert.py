"""Turns a folded program into one whose float part is in half precision, with every type explicit in the graph."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from edgekit.errors import InternalError, UserError
from edgekit.passes.aten import clean, is_call, node_facts, operator_name, origin_name, read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.half.arithmetic import LARGEST
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record, Skipped

__all__ = ["ToHalf"]

_A = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class ToHalf:
    """Weights, constants and arithmetic in float16; inputs and outputs keep their types behind casts.

    Strongly typed engines run what the graph says, so this is how float layers become fp16 there.

    What quantizes stays float32, between casts: a pair with its scale, and the weight that it rounds. Scales of weights
    lie below 6.1e-5 as a rule, and there float16 has few bits left or none.

    Attributes:
        kept: Names of nodes that stay float32 too, with the tensors that they read, each with the reason.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    name: str = "to-half"

    def check(self, program: Program) -> None:
        nodes = {node.name for node in program.graph.graph.nodes if node.op == "call_function"}
        unknown = sorted(self.kept.keys() - nodes)
        if unknown:
            raise InternalError(f"'{program.name}' has no node {', '.join(unknown)} to keep in float32")
        for name, tensor in _halved(program.graph, _wide(program.graph.graph, self.kept)).items():
            peak = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
            if peak > LARGEST:
                raise UserError(
                    f"'{name}' of '{program.name}' holds {peak:.3g}, beyond float16's largest value {LARGEST:.0f}",
                    hint="compile for fp32 or int8 instead (--precision)",
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        calls = graph.graph
        wide = _wide(calls, self.kept)
        # Comparisons and the like give no float: what they give is never cast.
        floats = _floats(program) if self.kept else None
        halved = _halved(graph, wide)
        for tensor in halved.values():
            tensor.data = tensor.data.half()
        for node in list(calls.nodes):
            if node.op == "call_function" and node not in wide:
                node.args, node.kwargs = _retyped(node.args), _retyped(node.kwargs)
        casts = _Casts(calls, wide)
        inputs = [node for node in calls.nodes if node.op == "placeholder"]
        for node, spec in zip(inputs, program.inputs, strict=True):
            if spec.dtype == "float32":
                casts.halve(node)
        for node in list(calls.nodes):
            if node.op == "get_attr" and _stays(graph, node, halved, wide):
                casts.halve(node)
        for node in [node for node in calls.nodes if node in wide]:
            casts.widen_inputs(node, floats)
            if floats is None or node.name in floats:
                casts.halve(node)
        casts.widen_outputs(program)
        clean(graph)
        return PassResult(program=program.recorded(self._record(program, calls, wide, len(halved))))

    def _record(self, program: Program, calls: fx.Graph, wide: Collection[fx.Node], changed: int) -> Record:
        pairs = sum(is_call(node, {QDQ}) for node in wide)
        kept = [node for node in calls.nodes if node.name in self.kept]
        summary = f"{changed} tensors to float16"
        if pairs:
            summary += f", {pairs} quantizing pairs left in float32"
        if kept:
            summary += f", {len(kept)} nodes kept in float32"
        skipped = tuple(
            Skipped(what=operator_name(node), where=origin_name(node), why=self.kept[node.name]) for node in kept
        )
        return Record(stage=self.name, summary=summary, changed=changed, skipped=skipped)


class _Casts:
    """Casts to and from float16, without one right behind its opposite.

    Args:
        calls: The graph.
        wide: The nodes that compute in float32.
    """

    def __init__(self, calls: fx.Graph, wide: Collection[fx.Node]) -> None:
        self._calls = calls
        self._compute_wide = wide
        # Cast to float16 -> what it casts, and float16 node -> its cast to float32.
        self._wide: dict[fx.Node, fx.Node] = {}
        self._widened: dict[fx.Node, fx.Node] = {}

    def halve(self, node: fx.Node) -> None:
        """Lets everybody but what computes in float32 see a float32 node in float16."""
        others = [user for user in node.users if user not in self._compute_wide and user.op != "output"]
        if not others:
            return
        with self._calls.inserting_after(node):
            cast = self._calls.call_function(_A.to.dtype, (node, torch.float16))
        node.replace_all_uses_with(cast, delete_user_cb=lambda user: user in others)
        self._wide[cast] = node

    def widen_inputs(self, node: fx.Node, floats: Collection[str] | None) -> None:
        """Lets a node that computes in float32 see its float16 inputs in float32."""

        def widened(item: fx.Node) -> fx.Node:
            is_float = floats is None or item.name in floats or item in self._wide
            return self._widen(item) if item.op == "call_function" and is_float else item

        node.args, node.kwargs = fx.map_arg(node.args, widened), fx.map_arg(node.kwargs, widened)

    def widen_outputs(self, program: Program) -> None:
        """Gives float32 outputs their type back."""
        output = next(node for node in self._calls.nodes if node.op == "output")
        flat = output.args[0] if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
        output.args = (
            tuple(
                self._widen(item) if isinstance(item, fx.Node) and spec.dtype == "float32" else item
                for item, spec in zip(flat, program.outputs, strict=True)
            ),
        )

    def _widen(self, node: fx.Node) -> fx.Node:
        if node in self._wide:
            return self._wide[node]
        if node in self._compute_wide or node.op == "placeholder":
            return node
        if node not in self._widened:
            with self._calls.inserting_after(node):
                self._widened[node] = self._calls.call_function(_A.to.dtype, (node, torch.float32))
        return self._widened[node]


def _wide(calls: fx.Graph, kept: Collection[str]) -> dict[fx.Node, None]:
    """The nodes that compute in float32: pairs, what is kept, the parts of its results, and what is made for it alone.

    A tuple's parts are of its type; a tensor made of no other (a recurrent layer's first state) takes its users'.
    """
    wide: dict[fx.Node, None] = {}
    for node in calls.nodes:
        part = node.target is operator.getitem and node.args[0] in wide
        if part or node.name in kept or is_call(node, {QDQ}):
            wide[node] = None
    for node in reversed(list(calls.nodes)):
        made = node.op == "call_function" and torch.float32 in (*node.args, *node.kwargs.values())
        alone = bool(node.users) and all(user in wide and user.name in kept for user in node.users)
        if made and alone and all(is_call(item, {_A.sym_size.int}) for item in node.all_input_nodes):
            wide[node] = None
    return wide


def _retyped(value: Any) -> Any:
    return fx.node.map_aggregate(value, lambda item: torch.float16 if item is torch.float32 else item)


def _floats(program: Program) -> set[str]:
    """The names of the nodes that give a float tensor."""
    example = [
        torch.zeros([1 if size is None else size for size in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in program.inputs
    ]
    facts = node_facts(program.graph, *example)
    return {node.name for node, fact in facts.items() if fact.is_floating_point()}


def _halved(graph: fx.GraphModule, wide: Collection[fx.Node]) -> dict[str, torch.Tensor]:
    """The float tensors that nothing reads in float32, by name; one that has two names is there once."""
    nodes = [node for node in graph.graph.nodes if node.op == "get_attr"]
    kept = {id(read_tensor(graph, node)) for node in nodes if any(user in wide for user in node.users)}
    found = {id(read_tensor(graph, node)): node for node in nodes}
    tensors = {str(node.target): read_tensor(graph, node) for key, node in found.items() if key not in kept}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _stays(graph: fx.GraphModule, node: fx.Node, halved: Mapping[str, torch.Tensor], wide: Collection[fx.Node]) -> bool:
    """Whether a tensor stays float32 although others read it too."""
    tensor = read_tensor(graph, node)
    others = any(user not in wide for user in node.users)
    return others and tensor.dtype == torch.float32 and all(tensor is not item for item in halved.values())
