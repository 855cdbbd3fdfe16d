"""Turns a folded program into one whose float part is in half precision, with every type explicit in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import clean, is_call, read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record

__all__ = ["ToHalf"]

_A = torch.ops.aten
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, kw_only=True)
class ToHalf:
    """Weights, constants and arithmetic in float16; inputs and outputs keep their types behind casts.

    Strongly typed engines run what the graph says, so this is how float layers become fp16 there.

    What quantizes stays float32, between casts: a pair with its scale, and the weight that it rounds. Scales of weights
    lie below 6.1e-5 as a rule, and there float16 has few bits left or none.
    """

    name: str = "to-half"

    def check(self, program: Program) -> None:
        for name, tensor in _halved(program.graph).items():
            peak = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
            if peak > _LARGEST_HALF:
                raise UserError(
                    f"'{name}' of '{program.name}' holds {peak:.3g}, beyond float16's "
                    f"largest value {_LARGEST_HALF:.0f}",
                    hint="compile for fp32 or int8 instead (--precision)",
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        calls = graph.graph
        halved = _halved(graph)
        for tensor in halved.values():
            tensor.data = tensor.data.half()
        for node in list(calls.nodes):
            if node.op == "call_function" and torch.float32 in (*node.args, *node.kwargs.values()):
                node.args = tuple(torch.float16 if item is torch.float32 else item for item in node.args)
                node.kwargs = {
                    key: torch.float16 if item is torch.float32 else item for key, item in node.kwargs.items()
                }
        casts = _Casts(calls)
        for node, spec in zip([node for node in calls.nodes if node.op == "placeholder"], program.inputs, strict=True):
            if spec.dtype == "float32":
                casts.halve(node)
        for node in list(calls.nodes):
            if node.op == "get_attr" and _stays(graph, node, halved):
                casts.halve(node)
        pairs = [node for node in calls.nodes if is_call(node, {QDQ})]
        for node in pairs:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if source.op != "get_attr":
                node.update_arg(0, casts.widened(source, before=node))
            casts.halve(node)
        output = next(node for node in calls.nodes if node.op == "output")
        flat = output.args[0] if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
        wrapped = tuple(
            casts.widened(item, before=output) if isinstance(item, fx.Node) and spec.dtype == "float32" else item
            for item, spec in zip(flat, program.outputs, strict=True)
        )
        output.args = (wrapped,)
        clean(graph)
        summary = f"{len(halved)} tensors to float16"
        if pairs:
            summary += f", {len(pairs)} quantizing pairs left in float32"
        record = Record(stage=self.name, summary=summary, changed=len(halved))
        return PassResult(program=program.recorded(record))


class _Casts:
    """Casts to and from float16, without one right behind its opposite."""

    def __init__(self, calls: fx.Graph) -> None:
        self._calls = calls
        self._wide: dict[fx.Node, fx.Node] = {}

    def halve(self, node: fx.Node) -> None:
        """Lets everybody but quantizing pairs, which read the weights and scales among the tensors, see float16."""
        with self._calls.inserting_after(node):
            cast = self._calls.call_function(_A.to.dtype, (node, torch.float16))
        spared = {cast}
        if node.op != "call_function":
            spared.update(user for user in node.users if is_call(user, {QDQ}))
        node.replace_all_uses_with(cast, delete_user_cb=lambda user: user not in spared)
        self._wide[cast] = node

    def widened(self, node: fx.Node, *, before: fx.Node) -> fx.Node:
        """Returns a float16 node as float32."""
        if node in self._wide:
            return self._wide[node]
        with self._calls.inserting_before(before):
            return self._calls.call_function(_A.to.dtype, (node, torch.float32))


def _halved(graph: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The float tensors that no quantizing pair reads, by name; one that has two names is there once."""
    nodes = [node for node in graph.graph.nodes if node.op == "get_attr"]
    kept = {id(read_tensor(graph, node)) for node in nodes if any(is_call(user, {QDQ}) for user in node.users)}
    found = {id(read_tensor(graph, node)): node for node in nodes}
    tensors = {str(node.target): read_tensor(graph, node) for key, node in found.items() if key not in kept}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _stays(graph: fx.GraphModule, node: fx.Node, halved: Mapping[str, torch.Tensor]) -> bool:
    """Whether a tensor stays float32 although others than quantizing pairs read it too."""
    tensor = read_tensor(graph, node)
    others = any(not is_call(user, {QDQ}) for user in node.users)
    return others and tensor.dtype == torch.float32 and all(tensor is not item for item in halved.values())
