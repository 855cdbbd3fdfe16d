"""Runs the float and the quantized program side by side, and stops at every layer where both can be compared.

Node names tie the two graphs together: quantizing inserts nodes and repeats some that only move values, and leaves the
name of every other node as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import COMPUTE, LINEAR, argument, is_call, read_tensor, store_parameter
from edgekit.passes.correct.run import Run
from edgekit.passes.quantize.insert import set_bias
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.samples import Batch
from edgekit.program import Program

__all__ = ["Lockstep", "Stop", "channel_axis", "check_pair", "int8_layers", "partners", "weight_pair", "why_shared"]

_ADD = torch.ops.aten.add.Tensor


def weight_pair(node: fx.Node) -> fx.Node | None:
    """Returns the quantize-dequantize pair between a layer and its weight parameter; None where there is none."""
    pair = node.args[1] if is_call(node, COMPUTE) and len(node.args) > 1 else None
    if not is_call(pair, {QDQ}):
        return None
    assert isinstance(pair, fx.Node)
    source = pair.args[0]
    return pair if isinstance(source, fx.Node) and source.op == "get_attr" else None


def int8_layers(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Returns the convolutions and linears whose weight stands behind a pair, in graph order."""
    return tuple(node for node in graph.graph.nodes if weight_pair(node) is not None)


def why_shared(graph: fx.GraphModule, node: fx.Node) -> str | None:
    """Says why a layer's weight may not be changed for this layer alone; None where it may."""
    pair = weight_pair(node)
    assert pair is not None
    weight = pair.args[0]
    assert isinstance(weight, fx.Node)
    readers = [
        reader
        for item in graph.graph.nodes
        if item.op == "get_attr" and item.target == weight.target
        for user in item.users
        for reader in (user.users if is_call(user, {QDQ}) else (user,))
    ]
    others = sorted({reader.name for reader in readers} - {node.name})
    return f"its weight '{weight.target}' is read by {', '.join(others)} too" if others else None


def channel_axis(node: fx.Node, output: torch.Tensor) -> int:
    """Which dimension of a layer's output holds its channels."""
    return output.ndim - 1 if is_call(node, LINEAR) else 1


def partners(floating: fx.GraphModule, quantized: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Returns, for each node of the quantized graph that the float graph has too, the node there."""
    known = {node.name: node for node in floating.graph.nodes}
    return {
        node: known[node.name]
        for node in quantized.graph.nodes
        if node.name in known and (node.op, node.target) == (known[node.name].op, known[node.name].target)
    }


def check_pair(floating: Program, quantized: Program) -> None:
    """Checks that one program is the float form of the other.

    Raises:
        UserError: ``floating`` is quantized itself, or they are not of one model.
    """
    for node in floating.graph.graph.nodes:
        if is_call(node, {QDQ}):
            raise UserError(
                f"'{floating.name}' is quantized itself ('{node.name}')", hint="give the float program it was made from"
            )
    twins = partners(floating.graph, quantized.graph)
    for node in int8_layers(quantized.graph):
        if node not in twins:
            raise UserError(
                f"layer '{node.name}' of '{quantized.name}' is not in the float program '{floating.name}'",
                hint="give the very program that was quantized",
            )


class Stop:
    """What can be seen and changed where both programs stand before the same layer.

    All tensors are float32. A batch is (images, ...) as the layer sees it.

    Attributes:
        node: The layer, in the quantized graph.
        partner: The same layer, in the float graph.
    """

    def __init__(self, node: fx.Node, partner: fx.Node, floating: Run, quantized: Run) -> None:
        self.node = node
        self.partner = partner
        self._floating = floating
        self._quantized = quantized

    def float_output(self, batch: int) -> torch.Tensor:
        """What the layer gives in the float program; computed once."""
        self._floating.execute(self.partner, batch)
        return self._tensor(self._floating.value(self.partner, batch))

    def quantized_input(self, batch: int) -> torch.Tensor:
        """What the layer reads in the quantized program, earlier changes included."""
        return self._tensor(self._quantized.value(self._argument(self.node), batch))

    def quantized_output(self, batch: int, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        """What the layer gives in the quantized program as it is now; computed anew each time.

        Args:
            weight: Instead of the layer's own dequantized weight.
        """
        pair = self.node.args[1]
        assert isinstance(pair, fx.Node)
        instead = {} if weight is None else {pair: weight}
        return self._tensor(self._quantized.call(self.node, batch, instead=instead))

    def added(self) -> tuple[fx.Node, fx.Node] | None:
        """What the layer's output is added to, in the float and in the quantized graph, if that is known already.

        None where the output goes anywhere but into one add, or where the other addend comes later.
        """
        if len(self.partner.users) != 1:
            return None
        total = next(iter(self.partner.users))
        twin = next((node for node in self._quantized.nodes if node.name == total.name), None)
        if not is_call(total, {_ADD}) or twin is None or argument(total, 2, "alpha", 1) != 1:
            return None
        places = [index for index in (0, 1) if total.args[index] is not self.partner]
        if len(places) != 1:
            return None
        pair = total.args[places[0]], twin.args[places[0]]
        first, second = pair
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return None
        return (first, second) if self._floating.knows(first) and self._quantized.knows(second) else None

    def error(self, batch: int, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        """The quantized layer's output minus the float layer's; where both are added to something, of the sums.

        Args:
            weight: Instead of the layer's own dequantized weight.
        """
        error = self.quantized_output(batch, weight=weight) - self.float_output(batch)
        added = self.added()
        if added is None:
            return error
        return error + self._addend_error(added, batch)

    def wanted_output(self, batch: int) -> torch.Tensor:
        """What the quantized layer's output would have to be without its bias, for :meth:`error` to be zero."""
        wanted, bias, added = self.float_output(batch), self.bias(), self.added()
        if added is not None:
            wanted = wanted - self._addend_error(added, batch)
        if bias is None:
            return wanted
        axis = channel_axis(self.node, wanted)
        return wanted - bias.reshape([-1 if index == axis else 1 for index in range(wanted.ndim)])

    def float_weight(self) -> torch.Tensor:
        """The weight in the float program."""
        weight = self.partner.args[1]
        assert isinstance(weight, fx.Node)
        return self._tensor(self._floating.value(weight, 0)).detach()

    def quantized_weight(self) -> torch.Tensor:
        """The dequantized weight in the quantized program."""
        pair = self.node.args[1]
        assert isinstance(pair, fx.Node)
        return self._tensor(self._quantized.value(pair, 0)).detach()

    def set_weight(self, weight: torch.Tensor) -> None:
        """Replaces the float parameter behind the layer's weight pair."""
        pair = weight_pair(self.node)
        assert pair is not None
        parameter = pair.args[0]
        assert isinstance(parameter, fx.Node)
        store_parameter(self._quantized.graph, str(parameter.target), weight)
        self._quantized.forget(pair)

    def subtract_from_bias(self, shift: torch.Tensor) -> None:
        """Lowers the layer's bias by ``shift``, float64 (output channels,); one shared with others stays theirs."""
        set_bias(self._quantized.graph, self.node, shift)

    def bias(self) -> torch.Tensor | None:
        """The layer's bias in the quantized program, (output channels,)."""
        bias = self.node.args[2] if len(self.node.args) > 2 else self.node.kwargs.get("bias")
        return read_tensor(self._quantized.graph, bias).detach() if isinstance(bias, fx.Node) else None

    def _addend_error(self, added: tuple[fx.Node, fx.Node], batch: int) -> torch.Tensor:
        first, second = added
        return self._tensor(self._quantized.value(second, batch)) - self._tensor(self._floating.value(first, batch))

    @staticmethod
    def _argument(node: fx.Node) -> fx.Node:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source

    @staticmethod
    def _tensor(value: Any) -> torch.Tensor:
        assert isinstance(value, torch.Tensor)
        return value


class Lockstep:
    """One forward pass of a float and of a quantized graph over the same images, layer by layer.

    Between two layers each batch runs on its own; at a layer all batches wait. So what is in memory is, for every image
    of ``batches``, what both graphs still need at that point, and it does not depend on how many calibration images
    there are beside them.

    Args:
        floating: The folded float graph.
        quantized: The same with pairs. Stops may change its weights and biases.
        batches: The images, held in memory.
    """

    def __init__(self, floating: fx.GraphModule, quantized: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self._batches = len(batches)
        self._twins = partners(floating, quantized)
        self._floating = Run(floating, batches)
        self._quantized = Run(quantized, batches)
        self._float_at = {node: index for index, node in enumerate(self._floating.nodes)}

    def stops(self, layers: Sequence[fx.Node]) -> Iterator[Stop]:
        """Runs both graphs from each of ``layers`` to the next, and on to the end once the last was seen.

        Args:
            layers: Nodes of the quantized graph, in graph order.
        """
        float_start = quantized_start = 0
        wanted = set(layers)
        for index, node in enumerate(self._quantized.nodes):
            if node not in wanted:
                continue
            float_index = self._float_at[self._twins[node]]
            for batch in range(self._batches):
                self._advance(self._floating, float_start, float_index, batch)
                self._advance(self._quantized, quantized_start, index, batch)
            float_start, quantized_start = float_index, index
            yield Stop(node, self._twins[node], self._floating, self._quantized)
        for batch in range(self._batches):
            self._advance(self._floating, float_start, len(self._floating.nodes), batch)
            self._advance(self._quantized, quantized_start, len(self._quantized.nodes), batch)

    def outputs(self, batch: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """The outputs of the float and of the quantized graph, once :meth:`stops` has come to its end."""
        first, second = (tuple(run.value(run.nodes[-1], batch)) for run in (self._floating, self._quantized))
        return first, second

    @staticmethod
    def _advance(run: Run, start: int, end: int, batch: int) -> None:
        for node in run.nodes[start:end]:
            run.execute(node, batch)
            run.release(node, batch)
