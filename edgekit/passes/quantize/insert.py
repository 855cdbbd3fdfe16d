"""Writes a plan into the graph: quantize-dequantize pairs on activations and weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from edgekit.passes.aten import beside, is_call, read_tensor, set_argument, store_buffer, store_parameter
from edgekit.passes.quantize.grids import Grid
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.policy import Plan, Site, moves_only

__all__ = ["insert_activations", "insert_weight", "moved_tensors", "set_bias"]

_A = torch.ops.aten


def insert_activations(graph: fx.GraphModule, plan: Plan, grids: Mapping[Site, Grid]) -> int:
    """Rewires every edge of the plan to the quantized form of its source.

    One pair per site, shared by all its consumers. Operators between the site and a consumer that only move values are
    repeated on the quantized side; where nothing reads the float side any more it dies with
    :func:`edgekit.passes.aten.clean`.

    Returns:
        How many pairs were inserted.
    """
    pairs: dict[Site, fx.Node] = {}
    moved: dict[fx.Node, fx.Node] = {}

    def pair(site: Site) -> fx.Node:
        if site not in pairs:
            name = f"{site.node.name}_{site.role}_quantize".replace(".", "_")
            pairs[site] = _insert_pair(graph, site.node, grids[site], name)
        return pairs[site]

    def quantized(value: fx.Node) -> fx.Node:
        """The quantized form of a convolution-like consumer's source."""
        if Site(node=value, role="conv") in grids:
            return pair(Site(node=value, role="conv"))
        if value not in moved:
            # Only operators that the plan hoisted over are between a site and its consumer.
            assert moves_only(value) or is_call(value, {_A.cat.default})
            inputs = {item: quantized(item) for item in moved_tensors(value)}
            # Before the original: its sizes and its sources, quantized ones included, all stand earlier.
            with graph.graph.inserting_before(value):
                moved[value] = graph.graph.node_copy(value, lambda item: inputs.get(item, item))
            moved[value].meta = dict(value.meta)
        return moved[value]

    for edge in plan.edges:
        source = edge.consumer.args[edge.index]
        assert isinstance(source, fx.Node)
        direct = edge.sites == (Site(node=source, role="linear"),)
        set_argument(edge.consumer, edge.index, pair(edge.sites[0]) if direct else quantized(source))
    return len(pairs)


def moved_tensors(node: fx.Node) -> list[fx.Node]:
    """Returns the tensors that a moving operator or concatenation moves (not the sizes among its arguments)."""
    first = node.args[0]
    if isinstance(first, fx.Node):
        return [first]
    assert isinstance(first, (list, tuple))
    return [item for item in first if isinstance(item, fx.Node)]


def _insert_pair(graph: fx.GraphModule, node: fx.Node, grid: Grid, name: str) -> fx.Node:
    store_buffer(graph, f"{name}_scale", grid.scale)
    store_buffer(graph, f"{name}_zero_point", grid.zero_point)
    anchor = node
    if node.op == "placeholder":
        anchor = [item for item in graph.graph.nodes if item.op == "placeholder"][-1]
    with graph.graph.inserting_after(anchor):
        scale = graph.graph.get_attr(f"{name}_scale")
    with graph.graph.inserting_after(scale):
        zero_point = graph.graph.get_attr(f"{name}_zero_point")
    with graph.graph.inserting_after(zero_point):
        result = graph.graph.call_function(QDQ, (node, scale, zero_point, grid.axis, grid.qmin, grid.qmax))
    result.meta = dict(node.meta)
    return result


def insert_weight(graph: fx.GraphModule, node: fx.Node, grid: Grid) -> None:
    """Puts a pair between a layer and its weight parameter, which stays float and trainable until export."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    shared = next((user for user in weight.users if is_call(user, {QDQ})), None)
    if shared is None:
        name = str(weight.target)
        store_buffer(graph, f"{name}_scale", grid.scale)
        store_buffer(graph, f"{name}_zero_point", grid.zero_point)
        with graph.graph.inserting_after(weight):
            scale = graph.graph.get_attr(f"{name}_scale")
        with graph.graph.inserting_after(scale):
            zero_point = graph.graph.get_attr(f"{name}_zero_point")
        with graph.graph.inserting_after(zero_point):
            shared = graph.graph.call_function(QDQ, (weight, scale, zero_point, grid.axis, grid.qmin, grid.qmax))
        shared.meta = dict(weight.meta)
    set_argument(node, 1, shared)


def set_bias(graph: fx.GraphModule, node: fx.Node, shift: torch.Tensor) -> None:
    """Subtracts ``shift`` (output channels,) from a layer's bias; a layer without one gets one of its own."""
    weight, bias = node.args[1], node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    old = read_tensor(graph, bias).detach().double() if isinstance(bias, fx.Node) else torch.zeros_like(shift)
    # A name of the layer's own: a bias may be shared by layers whose corrections differ.
    assert isinstance(weight, fx.Node)
    name = beside(str(weight.target), f"{node.name}_bias")
    store_parameter(graph, name, (old - shift).float())
    with graph.graph.inserting_before(node):
        attribute = graph.graph.get_attr(name)
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}
    set_argument(node, 2, attribute)
