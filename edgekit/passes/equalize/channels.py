"""Cross-layer equalization: the channels between two layers get like ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.passes.aten import (
    CONV,
    LINEAR,
    argument,
    beside,
    clean,
    is_call,
    node_facts,
    read_tensor,
    set_argument,
    store_parameter,
)
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.equalize.bounds import bound_channels
from edgekit.passes.equalize.chains import find_chains, upper_bound
from edgekit.passes.equalize.groups import (
    Facts,
    Group,
    check_float,
    divide_rows,
    multiply_columns,
    one_image,
    quantized_layers,
)
from edgekit.passes.equalize.settle import gains, left, settle
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record, Skipped
from edgekit.targets import QuantizeRules

__all__ = ["EqualizeChannels", "scale_chain"]

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class EqualizeChannels:
    """Divides channels by factors in the layer that makes them, and multiplies them in the layer that reads them.

    One grid covers all channels of a tensor, so a channel with a hundredth of the range of another keeps one or two of
    its 256 levels. Weights have a grid per output channel and lose nothing by factors there; the columns of the next
    layer do, unless it is depthwise. The factors balance both (:func:`edgekit.passes.equalize.factors.choose_factors`).

    The function stays as it is, up to float rounding. ReLU6 becomes ReLU and a minimum with six over the factor, per
    channel; :class:`edgekit.passes.equalize.bounds.DropImpliedBounds` removes that minimum where int8 implies it, and
    must run after quantization.

    Attributes:
        rules: Which layers are int8 on the target, and in which form.
        corrections: How many images are fitted on, and how many judge.
        data: The calibration images.

    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.
    """

    rules: QuantizeRules
    corrections: Corrections
    data: CalibrationData
    name: str = "equalize-channels"

    def check(self, program: Program) -> None:
        check_float(program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        groups, skipped = find_chains(graph)
        if self.corrections.equalize == "depthwise":
            groups, others = _with_depthwise(graph, groups)
            skipped += others
        facts: Facts = {}
        if groups:
            facts = node_facts(graph, *one_image(program, self.data))
            groups, float_ones = _int8_only(graph, groups, facts, self.rules)
            skipped += float_ones
        outcomes = settle(
            graph,
            groups,
            rules=self.rules,
            corrections=self.corrections,
            data=self.data,
            progress=context.progress,
        )
        kept = [item for item in outcomes if item.why is None]
        for item in kept:
            assert item.factors is not None
            scale_chain(graph, item.group, item.factors.values, facts)
        if kept:
            clean(graph)
        skipped += left("chain", outcomes)
        record = Record(
            stage=self.name,
            summary=f"channels of {len(kept)} tensors between two layers scaled, {len(skipped)} chains left",
            changed=len(kept),
            skipped=tuple(skipped),
            details={"gains": gains(outcomes)},
        )
        return PassResult(program=program.recorded(record))


def _with_depthwise(graph: fx.GraphModule, groups: list[Group]) -> tuple[list[Group], list[Skipped]]:
    """Parts the chains in which a layer is depthwise from the others."""
    found = [any(_is_depthwise(graph, layer) for layer in (group.producer, *group.layers)) for group in groups]
    why = "the recipe equalizes chains with a depthwise convolution alone (corrections.equalize)"
    skipped = [
        Skipped(what="chain", where=group.title, why=why)
        for group, depthwise in zip(groups, found, strict=True)
        if not depthwise
    ]
    return [group for group, depthwise in zip(groups, found, strict=True) if depthwise], skipped


def _is_depthwise(graph: fx.GraphModule, layer: fx.Node) -> bool:
    weight = layer.args[1]
    groups = argument(layer, 6, "groups", 1)
    return (
        is_call(layer, CONV) and groups > 1 and isinstance(weight, fx.Node) and read_tensor(graph, weight).shape[1] == 1
    )


def _int8_only(
    graph: fx.GraphModule, groups: list[Group], facts: Facts, rules: QuantizeRules
) -> tuple[list[Group], list[Skipped]]:
    """Parts the chains whose second layer reads int8 from those where there is nothing to gain."""
    why = quantized_layers(graph, facts, rules)
    skipped = [
        Skipped(what="chain", where=group.title, why=f"'{layer.name}' is not int8: {why.get(layer, 'not planned')}")
        for group in groups
        for layer in group.layers
        if why.get(layer, "not planned")
    ]
    return [group for group in groups if why.get(group.layers[0], "not planned") == ""], skipped


def scale_chain(graph: fx.GraphModule, group: Group, factors: torch.Tensor, facts: Facts) -> None:
    """Divides the channels between two layers by positive factors, and gives them back in the second layer's weight.

    Args:
        graph: Changed in place; its function stays.
        group: The chain.
        factors: (channels,).
        facts: Shapes of the tensors between.
    """
    producer, (layer,) = group.producer, group.layers
    # In float64, so that two groups that share a layer round it as one would.
    exact = factors.double()
    _store(graph, producer, lambda weight: divide_rows(producer, weight, exact))
    bias = argument(producer, 2, "bias")
    if isinstance(bias, fx.Node):
        _set_bias(graph, producer, read_tensor(graph, bias).detach().double() / exact)
    _store(graph, layer, lambda weight: multiply_columns(layer, weight, exact))
    for node in group.between:
        bound = upper_bound(node)
        if bound is not None and bound < float("inf"):
            linear = is_call(layer, LINEAR)
            shape = [-1] if linear else [1, -1, *[1] * (facts[node].ndim - 2)]
            bound_channels(graph, node, (bound / exact).reshape(shape))


def _store(graph: fx.GraphModule, layer: fx.Node, change: Change) -> None:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    value = read_tensor(graph, weight).detach()
    store_parameter(graph, str(weight.target), change(value.double()).to(value.dtype))


def _set_bias(graph: fx.GraphModule, layer: fx.Node, value: torch.Tensor) -> None:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    # A name of the layer's own: its old bias may be another layer's too.
    name = beside(str(weight.target), f"{layer.name}_bias")
    store_parameter(graph, name, value.float())
    with graph.graph.inserting_before(layer):
        attribute = graph.graph.get_attr(name)
    layer.kwargs = {key: item for key, item in layer.kwargs.items() if key != "bias"}
    set_argument(layer, 2, attribute)
