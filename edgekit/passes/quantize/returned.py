"""Returns chosen layers of a quantized program to float: the tool of mixed precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.errors import InternalError, UserError
from edgekit.passes.aten import (
    COMPUTE,
    argument,
    beside,
    clean,
    is_call,
    layer_name,
    read_tensor,
    set_argument,
    store_parameter,
)
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.insert import moved_tensors
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record, Skipped

__all__ = ["ReturnToFloat", "quantized_layers"]


def quantized_layers(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Returns the compute layers whose weight is int8, in graph order."""
    return tuple(node for node in graph.graph.nodes if is_call(node, COMPUTE) and is_call(node.args[1], {QDQ}))


@dataclass(frozen=True, kw_only=True)
class ReturnToFloat:
    """Takes layers of a quantized program back to float: their input, weight and bias are the float program's again.

    What else reads the int8 tensors goes on reading them, and what these layers produce is quantized afterwards as
    before.

    Attributes:
        layers: Node names, each with the reason for the report.
        floating: The program that was quantized.
    """

    layers: Mapping[str, str]
    floating: Program
    name: str = "return-to-float"

    def check(self, program: Program) -> None:
        known = {node.name for node in quantized_layers(program.graph)}
        unknown = [name for name in self.layers if name not in known]
        if unknown:
            raise UserError(f"'{program.name}' has no int8 layer {', '.join(unknown)}", hint="quantize it first")

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        originals = {node.name: node for node in self.floating.graph.graph.nodes}
        skipped = []
        for node in quantized_layers(graph):
            if node.name not in self.layers:
                continue
            if node.name not in originals:
                raise InternalError(f"layer '{node.name}' is not in the float program")
            skipped.append(Skipped(what="layer", where=layer_name(node), why=self.layers[node.name]))
            source = node.args[0]
            assert isinstance(source, fx.Node)
            set_argument(node, 0, _float_side(graph, source, {}))
            for index in (1, 2):
                self._restore(graph, node, originals[node.name], index)
        clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{len(skipped)} layers returned to float: {', '.join(item.where for item in skipped)}",
            changed=len(skipped),
            skipped=tuple(skipped),
        )
        return PassResult(program=program.recorded(record))

    def _restore(self, graph: fx.GraphModule, node: fx.Node, original: fx.Node, index: int) -> None:
        """Gives a layer the float program's weight (1) or bias (2); who else reads it keeps what is there."""
        source = argument(original, index, "bias")
        if not isinstance(source, fx.Node):
            if len(node.args) > index:
                set_argument(node, index, None)
            return
        value, name = read_tensor(self.floating.graph, source), str(source.target)
        kept = dict(graph.named_parameters(remove_duplicate=False)).get(name)
        if kept is not None and not torch.equal(kept, value) and _readers(graph, name) > 1:
            name = beside(name, f"{node.name}_float.{name.rpartition('.')[2]}")
        store_parameter(graph, name, value)
        with graph.graph.inserting_before(node):
            attribute = graph.graph.get_attr(name)
        node.kwargs = {key: item for key, item in node.kwargs.items() if key != "bias"}
        set_argument(node, index, attribute)


def _readers(graph: fx.GraphModule, name: str) -> int:
    """How many layers read a tensor, through a pair or directly."""
    nodes = [node for node in graph.graph.nodes if node.op == "get_attr" and node.target == name]
    users = [user for node in nodes for user in node.users]
    return sum(len(user.users) if is_call(user, {QDQ}) else 1 for user in users)


def _float_side(graph: fx.GraphModule, value: fx.Node, made: dict[fx.Node, fx.Node]) -> fx.Node:
    """The float form of a quantized tensor: what stands before its pairs, with the moves between repeated."""
    if is_call(value, {QDQ}):
        source = value.args[0]
        assert isinstance(source, fx.Node)
        return source
    if value not in made:
        # Only operators that move values stand between a layer and its pairs: `insert.py` repeated them there.
        floats = {item: _float_side(graph, item, made) for item in moved_tensors(value)}
        with graph.graph.inserting_before(value):
            made[value] = graph.graph.node_copy(value, lambda item: floats.get(item, item))
        made[value].meta = dict(value.meta)
    return made[value]
