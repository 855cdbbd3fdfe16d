"""Activation smoothing: outlier channels of a layer norm's output move into the weights of the linears that read it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.passes.aten import (
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
from edgekit.passes.equalize.groups import (
    Facts,
    Group,
    check_float,
    multiply_columns,
    one_image,
    quantized_layers,
    readers,
    why_not_own,
)
from edgekit.passes.equalize.settle import gains, left, settle
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record, Skipped
from edgekit.targets import QuantizeRules

__all__ = ["SmoothActivations", "find_norms", "scale_norm"]

_A = torch.ops.aten
_NORM = frozenset({_A.layer_norm.default})
# Operators that leave the last dimension as it is, if its size is still the same afterwards.
_RESHAPES = frozenset(
    {
        _A.view.default,
        _A.reshape.default,
        _A.flatten.using_ints,
        _A.unsqueeze.default,
        _A.expand.default,
        _A.contiguous.default,
        _A.clone.default,
    }
)


@dataclass(frozen=True, kw_only=True)
class SmoothActivations:
    """Divides a layer norm's weight and bias by factors, and multiplies the columns of the linears after it.

    A few channels of a transformer's activations are often far larger than the rest and take the tensor's 256 levels
    for themselves. The function stays as it is, up to float rounding.

    Attributes:
        rules: Which layers are int8 on the target, and in which form.
        corrections: How many images are fitted on, and how many judge.
        data: The calibration images.

    Source: Xiao et al. 2022, arXiv:2211.10438, equations 3 and 4.
    """

    rules: QuantizeRules
    corrections: Corrections
    data: CalibrationData
    name: str = "smooth-activations"

    def check(self, program: Program) -> None:
        check_float(program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        groups: list[Group] = []
        skipped: list[Skipped] = []
        if all(any(is_call(node, kind) for node in graph.graph.nodes) for kind in (_NORM, LINEAR)):
            facts = node_facts(graph, *one_image(program, self.data))
            groups, skipped = find_norms(graph, facts, self.rules)
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
            scale_norm(graph, item.group, item.factors.values)
        if kept:
            clean(graph)
        skipped += left("layer norm", outcomes)
        record = Record(
            stage=self.name,
            summary=f"channels of {len(kept)} layer norms scaled for the linears after them, {len(skipped)} left",
            changed=len(kept),
            skipped=tuple(skipped),
            details={"gains": gains(outcomes)},
        )
        return PassResult(program=program.recorded(record))


def find_norms(graph: fx.GraphModule, facts: Facts, rules: QuantizeRules) -> tuple[list[Group], list[Skipped]]:
    """Returns the layer norms that linears read, and those of them that must be left, with the reason."""
    groups: list[Group] = []
    skipped: list[Skipped] = []
    why_float = quantized_layers(graph, facts, rules)
    for node in graph.graph.nodes:
        found = _group(graph, node, facts, why_float) if is_call(node, _NORM) else None
        if isinstance(found, Group):
            groups.append(found)
        elif found is not None:
            skipped.append(Skipped(what="layer norm", where=node.name, why=found))
    return groups, skipped


def _group(graph: fx.GraphModule, norm: fx.Node, facts: Facts, why_float: dict[fx.Node, str]) -> Group | str | None:
    """Returns the norm with all linears that read it; a reason where it must be left, None where no linear reads it."""
    layers: list[fx.Node] = []
    between: set[fx.Node] = set()
    reasons: list[str] = []
    waiting = [norm]
    while waiting:
        node = waiting.pop()
        for user in readers(node):
            if is_call(user, LINEAR) and user.args[0] is node and node not in user.args[1:]:
                layers.append(user)
            elif _keeps_channels(user, facts):
                if user not in between:
                    between.add(user)
                    waiting.append(user)
            else:
                reasons.append(f"'{user.name}' reads it too")
    if not layers:
        return None
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    layers.sort(key=lambda node: order[node])
    for item in (argument(norm, 2, "weight"), argument(norm, 3, "bias")):
        if isinstance(item, fx.Node) and item.op != "get_attr":
            reasons.append("its weight or bias is computed")
    if len(argument(norm, 1, "normalized_shape")) != 1:
        reasons.append("it normalises over more than the channels")
    for layer in layers:
        own = why_not_own(layer)
        if own is not None:
            reasons.append(own)
        elif why_float.get(layer, "not planned"):
            reasons.append(f"'{layer.name}' is not int8: {why_float.get(layer, 'not planned')}")
    if facts[norm].dtype != torch.float32:
        reasons.append("it is not float32")
    if reasons:
        return "; ".join(dict.fromkeys(reasons))
    moved = tuple(sorted(between, key=lambda node: order[node]))
    return Group(producer=norm, between=moved, layers=tuple(layers), channels=facts[norm].shape[-1])


def _keeps_channels(node: fx.Node, facts: Facts) -> bool:
    """Whether an operator moves positions only, and leaves the last dimension to the channels."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in facts or node not in facts:
        return False
    rank = facts[source].ndim
    if facts[node].ndim < 1 or facts[node].shape[-1] != facts[source].shape[-1]:
        return False
    if is_call(node, _RESHAPES):
        return True
    if is_call(node, {_A.permute.default}):
        return int(argument(node, 1, "dims")[-1]) % rank == rank - 1
    if is_call(node, {_A.transpose.int}):
        return all(int(argument(node, place, f"dim{place - 1}")) % rank != rank - 1 for place in (1, 2))
    if is_call(node, {_A.select.int, _A.slice.Tensor, _A.squeeze.dim}):
        return int(argument(node, 1, "dim", 0)) % rank != rank - 1
    if is_call(node, {_A.roll.default}):
        dims = argument(node, 2, "dims", ())
        return bool(dims) and all(dim % rank != rank - 1 for dim in dims)
    if is_call(node, {_A.pad.default}):
        padded, mode = argument(node, 1, "pad"), argument(node, 2, "mode", "constant")
        return mode == "constant" and argument(node, 3, "value") in (None, 0) and list(padded[:2]) == [0, 0]
    if is_call(node, {_A.constant_pad_nd.default}):
        return argument(node, 2, "value", 0) == 0 and list(argument(node, 1, "pad")[:2]) == [0, 0]
    return False


def scale_norm(graph: fx.GraphModule, group: Group, factors: torch.Tensor) -> None:
    """Divides a layer norm's output by positive factors (channels,), and gives them back in the linears' weights.

    The graph is changed in place; its function stays.
    """
    norm, factors = group.producer, factors.double()
    weight = argument(norm, 2, "weight")
    # A norm without a weight gets one; one whose weight is shared gets its own.
    old = read_tensor(graph, weight).detach().double() if isinstance(weight, fx.Node) else torch.ones_like(factors)
    _replace(graph, norm, 2, "weight", old / factors)
    bias = argument(norm, 3, "bias")
    if isinstance(bias, fx.Node):
        _replace(graph, norm, 3, "bias", read_tensor(graph, bias).detach().double() / factors)
    for layer in group.layers:
        attribute = layer.args[1]
        assert isinstance(attribute, fx.Node)
        value = read_tensor(graph, attribute).detach().double()
        store_parameter(graph, str(attribute.target), multiply_columns(layer, value, factors).float())


def _replace(graph: fx.GraphModule, norm: fx.Node, index: int, key: str, value: torch.Tensor) -> None:
    old = argument(norm, index, key)
    leaf = f"{norm.name}_{key}"
    name = beside(str(old.target), leaf) if isinstance(old, fx.Node) else leaf
    store_parameter(graph, name, value.float())
    with graph.graph.inserting_before(norm):
        attribute = graph.graph.get_attr(name)
    norm.kwargs = {item: kept for item, kept in norm.kwargs.items() if item != key}
    set_argument(norm, index, attribute)
