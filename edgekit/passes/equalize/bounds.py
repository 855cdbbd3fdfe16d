"""After quantization: removes bounds per channel that the 8-bit grid implies, because engines do not fuse them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.passes.aten import clean, is_call, read_tensor, store_buffer
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record

__all__ = ["DropImpliedBounds", "bound_channels"]

_A = torch.ops.aten
# Buffers of this ending hold bounds that equalization made; a network's own minimum is not touched.
_BOUND = "_equalized_bound"


def bound_channels(graph: fx.GraphModule, node: fx.Node, bounds: torch.Tensor) -> None:
    """Turns a clamp from zero up into a ReLU and a minimum with one bound per channel.

    Args:
        graph: Changed in place.
        node: The clamp.
        bounds: Positive, in a shape that broadcasts over the channels.
    """
    name = f"{node.name}{_BOUND}"
    store_buffer(graph, name, bounds.float())
    with graph.graph.inserting_before(node):
        positive = graph.graph.call_function(_A.relu.default, (node.args[0],))
        limited = graph.graph.call_function(_A.minimum.default, (positive, graph.graph.get_attr(name)))
    positive.meta, limited.meta = dict(node.meta), dict(node.meta)
    node.replace_all_uses_with(limited)
    graph.graph.erase_node(node)


@dataclass(frozen=True, kw_only=True)
class DropImpliedBounds:
    """Takes out what :class:`~edgekit.passes.equalize.channels.EqualizeChannels` made of ReLU6, where int8 does it too.

    A minimum that only quantize-dequantize pairs read, and all of whose bounds round to the last level of their grid,
    changes nothing: the grid clips there. Where a grid reaches beyond the smallest bound, which takes images that go
    beyond those that the factors were fitted on, the grid is made to end there first.

    Where something else reads it (a layer that was returned to float), it becomes a clamp between two multiplications
    per channel, which engines fuse into the layer before; a minimum per channel they do not.

    Run it last, on the program that is exported.
    """

    name: str = "drop-implied-bounds"

    def check(self, program: Program) -> None:
        """Takes any program."""

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        dropped = narrowed = rewritten = 0
        for node in list(graph.graph.nodes):
            bound = node.args[1] if is_call(node, {_A.minimum.default}) else None
            if not isinstance(bound, fx.Node) or not str(bound.target).endswith(_BOUND):
                continue
            if all(is_call(user, {QDQ}) and user.args[0] is node for user in node.users):
                smallest = float(read_tensor(graph, bound).min())
                narrowed += sum(_end_at(graph, pair, smallest) for pair in node.users)
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
                dropped += 1
            else:
                _multiply(graph, node, bound)
                rewritten += 1
        if dropped + rewritten:
            clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{dropped} tensors bounded by their 8-bit grid alone ({narrowed} grids made to end there), "
            f"{rewritten} by a clamp between two factors",
            changed=dropped + rewritten,
        )
        return PassResult(program=program.recorded(record))


def _end_at(graph: fx.GraphModule, pair: fx.Node, bound: float) -> bool:
    """Makes a grid of values from zero up end at ``bound`` or before; returns whether it had to be changed."""
    _, scale_node, zero_node, axis, _, qmax = pair.args
    assert isinstance(scale_node, fx.Node)
    assert isinstance(zero_node, fx.Node)
    assert axis == -1
    scale, zero = read_tensor(graph, scale_node), int(read_tensor(graph, zero_node))
    levels = int(qmax) - zero  # type: ignore[arg-type]
    # Half a step below the last level still rounds to it.
    if round(bound / float(scale)) >= levels:
        return False
    store_buffer(graph, str(scale_node.target), torch.tensor(bound / levels, dtype=scale.dtype))
    return True


def _multiply(graph: fx.GraphModule, node: fx.Node, bound: fx.Node) -> None:
    positive = node.args[0]
    assert isinstance(positive, fx.Node)
    bounds = read_tensor(graph, bound).double()
    largest = float(bounds.max())
    name = str(bound.target)
    store_buffer(graph, f"{name}_factor", (bounds / largest).float())
    store_buffer(graph, f"{name}_inverse", (largest / bounds).float())
    with graph.graph.inserting_before(node):
        wide = graph.graph.call_function(_A.mul.Tensor, (positive.args[0], graph.graph.get_attr(f"{name}_inverse")))
        clamped = graph.graph.call_function(_A.clamp.default, (wide, 0.0, largest))
        result = graph.graph.call_function(_A.mul.Tensor, (clamped, graph.graph.get_attr(f"{name}_factor")))
    node.replace_all_uses_with(result)
    graph.graph.erase_node(node)
