"""A tensor whose channels may be scaled: what makes it, what reads it, and the operators between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import BATCH_NORM, COMPUTE, CONV_TRANSPOSE, LINEAR, argument, is_call, layer_name
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.policy import make_plan
from edgekit.passes.samples import Batch, CalibrationData
from edgekit.program import Program
from edgekit.targets import QuantizeRules

__all__ = [
    "Facts",
    "Group",
    "along",
    "channel_axis",
    "check_float",
    "divide_rows",
    "input_of",
    "multiply_columns",
    "one_image",
    "quantized_layers",
    "readers",
    "weight_blocks",
    "why_not_own",
]

_A = torch.ops.aten
Facts = dict[fx.Node, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that one producer makes and only the given layers read.

    Dividing the producer's channels by positive factors and multiplying the layers' input columns by them leaves the
    function as it is.

    Attributes:
        producer: A convolution, linear or layer norm.
        between: Operators from the producer to the layers, both left out, in graph order. Each commutes with positive
            factors per channel.
        layers: Convolutions or linears that read the tensor.
        channels: How many.
        bound: Smallest upper bound of the activations between (6 for ReLU6), or None.
    """

    producer: fx.Node
    between: tuple[fx.Node, ...]
    layers: tuple[fx.Node, ...]
    channels: int
    bound: float | None = None

    @property
    def title(self) -> str:
        """What people call it: the producer, and the layers, by their dotted names."""
        made = layer_name(self.producer) if is_call(self.producer, COMPUTE) else self.producer.name
        return f"{made} -> {', '.join(layer_name(item) for item in self.layers)}"


def input_of(layer: fx.Node) -> fx.Node:
    """Returns the tensor that a layer reads."""
    source = layer.args[0]
    assert isinstance(source, fx.Node)
    return source


def along(values: torch.Tensor, tensor: torch.Tensor, layer: fx.Node) -> torch.Tensor:
    """Returns values, one a channel, in a shape that broadcasts over a tensor that ``layer`` reads or gives."""
    shape = [1] * tensor.ndim
    shape[channel_axis(layer)] = -1
    return values.reshape(shape)


def check_float(program: Program) -> None:
    """Checks that a program is folded and not quantized.

    Raises:
        UserError: It is not.
    """
    for node in program.graph.graph.nodes:
        if is_call(node, BATCH_NORM):
            raise UserError(
                f"'{program.name}' still has batch norm '{node.name}'", hint="run the fold passes before scaling"
            )
        if is_call(node, {QDQ}):
            raise UserError(
                f"'{program.name}' is quantized already ('{node.name}')", hint="scale channels of the float program"
            )


def one_image(program: Program, data: CalibrationData) -> Batch:
    """Returns an example input as small as the program takes."""
    example = data.example()
    return tuple(tensor[:1] for tensor in example) if program.dynamic_batch else example


def readers(node: fx.Node) -> list[fx.Node]:
    """Returns what reads a tensor's values; reading a size does not count."""
    return [user for user in node.users if not is_call(user, {_A.sym_size.int})]


def quantized_layers(graph: fx.GraphModule, facts: Facts, rules: QuantizeRules) -> dict[fx.Node, str]:
    """Returns why each layer that the target leaves float is left so, and an empty string for each that is int8."""
    plan = make_plan(graph, facts, rules)
    reasons = {item.where: item.why for item in plan.skipped}
    answer = {node: reasons[node.name] for node in graph.graph.nodes if node.name in reasons}
    return answer | {node: "" for node, _ in plan.weights}


def channel_axis(layer: fx.Node) -> int:
    """Returns the dimension of the input channels in the tensor that a layer reads."""
    return -1 if is_call(layer, LINEAR) else 1


def why_not_own(layer: fx.Node) -> str | None:
    """Returns why a layer's weight cannot be rewritten, or None."""
    weight = layer.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return f"the weight of '{layer.name}' is computed"
    readers = {
        user
        for item in layer.graph.nodes
        if item.op == "get_attr" and item.target == weight.target
        for user in item.users
    }
    if len(readers) > 1:
        return f"the weight of '{layer.name}' is shared by {len(readers)} nodes"
    return None


def weight_blocks(layer: fx.Node, weight: torch.Tensor) -> torch.Tensor:
    """Returns a layer's weight as (groups, outputs per group, inputs per group, taps)."""
    if is_call(layer, LINEAR):
        return weight[None, :, :, None]
    if is_call(layer, CONV_TRANSPOSE):
        return weight.transpose(0, 1).flatten(2)[None]
    groups = argument(layer, 6, "groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def multiply_columns(layer: fx.Node, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Returns the weight with input channel ``j`` multiplied by ``factors[j]``, in the weight's shape."""
    if is_call(layer, LINEAR):
        return weight * factors
    if is_call(layer, CONV_TRANSPOSE):
        return weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
    blocks = weight_blocks(layer, weight)
    return (blocks * factors.reshape(len(blocks), 1, -1, 1)).reshape(weight.shape)


def divide_rows(layer: fx.Node, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Returns the weight with output channel ``i`` divided by ``factors[i]``, in the weight's shape."""
    axis = 1 if is_call(layer, CONV_TRANSPOSE) else 0
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight / factors.reshape(shape)
