"""Policy: which tensors become int8, where the quantization stands, what shares a scale, and why the rest stays float.

Nothing here looks at data. The rules are numbered as in ``docs/quantization.md``.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.passes.aten import (
    ACTIVATIONS_FUSED,
    ATTENTION,
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    MATMUL,
    NORM,
    POOL_AVERAGE,
    SHAPE_ONLY,
    SPLITS,
    argument,
    is_call,
)
from edgekit.passes.quantize.grids import Role
from edgekit.program import Skipped
from edgekit.targets import QuantizeRules

__all__ = ["Edge", "Plan", "Site", "make_plan", "moves_only"]

_A = torch.ops.aten
Facts = dict[fx.Node, torch.Tensor]
_ON_THE_WAY_TO_SOFTMAX = frozenset(
    {
        _A.mul.Tensor,
        _A.mul.Scalar,
        _A.div.Tensor,
        _A.div.Scalar,
        _A.add.Tensor,
        _A.masked_fill.Scalar,
        _A.where.self,
        _A.view.default,
        _A.reshape.default,
    }
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A tensor that gets a quantize-dequantize pair, in the form that its consumers want."""

    node: fx.Node
    role: Role


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Argument ``index`` of ``consumer`` is to be int8; ``sites`` are the tensors that it comes from."""

    consumer: fx.Node
    index: int
    sites: tuple[Site, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where to quantize.

    Attributes:
        edges: In graph order.
        groups: Sites that share one grid; every site is in exactly one group.
        weights: Compute nodes whose weight becomes int8, with its output channel axis.
        skipped: Compute nodes left float, with the reason.
    """

    edges: tuple[Edge, ...]
    groups: tuple[tuple[Site, ...], ...]
    weights: tuple[tuple[fx.Node, int], ...]
    skipped: tuple[Skipped, ...]


def moves_only(node: object) -> bool:
    """Whether a node only moves, selects or zero-pads values, so that quantization may be hoisted above it (rule 1)."""
    if not isinstance(node, fx.Node):
        return False
    if is_call(node, {_A.pad.default}):
        return str(argument(node, 2, "mode", "constant")) == "constant" and argument(node, 3, "value") in (None, 0)
    if is_call(node, {_A.constant_pad_nd.default}):
        return argument(node, 2, "value", 0) in (0, None)
    if is_call(node, {operator.getitem}):
        return is_call(node.args[0], SPLITS)
    return is_call(node, SHAPE_ONLY)


def make_plan(graph: fx.GraphModule, facts: Facts, rules: QuantizeRules) -> Plan:
    """Decides where int8 goes.

    Args:
        graph: Folded graph (no batch norm).
        facts: Shape and dtype of every node, from :func:`edgekit.passes.aten.node_facts`.
        rules: The target's rules.
    """
    gates = _squeeze_excite(graph, facts, rules)
    edges: list[Edge] = []
    weights: list[tuple[fx.Node, int]] = []
    skipped: list[Skipped] = []
    ties = _Ties()
    for node in graph.graph.nodes:
        wanted = _wanted_arguments(node, facts, rules, gates)
        if isinstance(wanted, str):
            skipped.append(Skipped(what=_kind(node), where=node.name, why=wanted))
            continue
        role: Role = "linear" if is_call(node, {*LINEAR, *MATMUL, *ATTENTION}) else "conv"
        for index in wanted:
            source = node.args[index]
            assert isinstance(source, fx.Node)
            edges.append(Edge(consumer=node, index=index, sites=_sites(source, role, facts, ties)))
        if wanted and is_call(node, {*CONV, *CONV_TRANSPOSE, *LINEAR}):
            weights.append((node, 1 if is_call(node, CONV_TRANSPOSE) else 0))
    groups = ties.groups([site for edge in edges for site in edge.sites])
    return Plan(edges=tuple(edges), groups=groups, weights=tuple(weights), skipped=tuple(skipped))


def _wanted_arguments(node: fx.Node, facts: Facts, rules: QuantizeRules, gates: _Gates) -> tuple[int, ...] | str:
    """Returns the arguments of a node that should be int8, or the reason why a candidate stays float."""
    if is_call(node, {*CONV, *CONV_TRANSPOSE, *LINEAR}):
        return _layer(node, facts, rules, gates)
    if is_call(node, {_A.add.Tensor}):
        return _residual_add(node, facts, rules)
    if is_call(node, POOL_AVERAGE):
        return _pool(node, facts, rules, gates)
    if node in gates.products:
        return (0, 1)
    if is_call(node, {*MATMUL, *ATTENTION}) and all(item in facts for item in node.args[:2]):
        return _attention(node, rules)
    if is_call(node, {_A.lstm.input, _A.gru.input, _A.lstm_cell.default, _A.gru_cell.default}):
        return "recurrent layers stay float (rule 6)"
    return ()


def _layer(node: fx.Node, facts: Facts, rules: QuantizeRules, gates: _Gates) -> tuple[int, ...] | str:
    source, weight = node.args[0], node.args[1]
    if not isinstance(source, fx.Node) or source not in facts or not facts[source].is_floating_point():
        return "its input is not a float tensor"
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return "its weight is computed, not a parameter"
    groups = argument(node, 6 if not is_call(node, LINEAR) else 99, "groups", 1)
    if is_call(node, CONV_TRANSPOSE) and groups != 1:
        return "a grouped transposed convolution has no per-channel int8 form"
    if node in gates.floats:
        return "inside a squeeze-excite branch, which the target runs wholly float (rule 5)"
    channels = facts[source].shape[1] if facts[source].ndim > 1 else 1
    if groups > 1 and groups == channels and rules.depthwise == "float":
        return "the target runs depthwise convolutions faster in float"
    return (0,)


def _residual_add(node: fx.Node, facts: Facts, rules: QuantizeRules) -> tuple[int, ...] | str:
    """Rule 2: both inputs of a convolutional network's residual add, none in a transformer's."""
    operands = [item for item in node.args[:2] if isinstance(item, fx.Node) and item in facts]
    if len(operands) != 2 or operands[0] is operands[1] or facts[operands[0]].shape != facts[operands[1]].shape:
        return ()
    if facts[node].ndim != 4 or not facts[node].is_floating_point():
        return ()
    if argument(node, 2, "alpha", 1) != 1 or any(item.op == "get_attr" for item in operands):
        return ()
    roots = [_root(item) for item in operands]
    if any(_is_token_branch(item, facts) for item in roots):
        return "a residual add whose branch comes from a linear, an attention or a layer scale stays float (rule 2)"
    if rules.residual_add == "float":
        return "the target leaves residual adds float"
    return (0, 1)


def _is_token_branch(root: fx.Node, facts: Facts) -> bool:
    if is_call(root, {*LINEAR, *MATMUL, *ATTENTION}):
        return True
    # A product with a parameter is layer scale (ConvNeXt, PoolFormer), whatever shape the parameter is given.
    return is_call(root, {_A.mul.Tensor}) and any(_is_parameter(item) for item in root.args[:2])


def _is_parameter(value: object) -> bool:
    while moves_only(value):
        assert isinstance(value, fx.Node)
        value = value.args[0]
    return isinstance(value, fx.Node) and value.op == "get_attr"


def _pool(node: fx.Node, facts: Facts, rules: QuantizeRules, gates: _Gates) -> tuple[int, ...] | str:
    source = node.args[0]
    if not isinstance(source, fx.Node) or source not in facts or facts[source].ndim != 4:
        return ()
    if node in gates.floats:
        return "the pool of a squeeze-excite branch, which the target runs float (rule 5)"
    if node in gates.int8:
        return (0,)
    if is_call(_root(source), NORM):
        return "a pool after a norm, which is float, gains nothing in int8 (rule 3)"
    if rules.global_pool == "float":
        return "the target leaves pools float"
    return (0,)


def _attention(node: fx.Node, rules: QuantizeRules) -> tuple[int, ...] | str:
    """Rule 7: both products of activations, queries times keys alone, or none. Arguments 0 and 1 are query and key."""
    if rules.attention_matmul == "float":
        return "the target leaves matrix products of two activations float (rule 7)"
    if is_call(node, ATTENTION) or rules.attention_matmul == "int8" or _feeds_softmax(node):
        return (0, 1)
    return "of the matrix products of two activations, the target runs only queries times keys in int8 (rule 7)"


def _feeds_softmax(node: fx.Node) -> bool:
    """Whether a product becomes attention scores: scaled, masked, then softmax."""
    waiting = [node]
    while waiting:
        for user in waiting.pop().users:
            if is_call(user, {_A.softmax.int, _A._softmax.default}):
                return True
            if is_call(user, _ON_THE_WAY_TO_SOFTMAX):
                waiting.append(user)
    return False


@dataclass(frozen=True, kw_only=True)
class _Gates:
    """Squeeze-excite branches, by what they run in.

    Attributes:
        int8: Nodes from the pool to the gate.
        products: Those that apply an int8 branch's gate.
        floats: Nodes from the pool to the gate, of branches that stay float.
    """

    int8: frozenset[fx.Node]
    products: frozenset[fx.Node]
    floats: frozenset[fx.Node]


def _squeeze_excite(graph: fx.GraphModule, facts: Facts, rules: QuantizeRules) -> _Gates:
    """Finds products of a feature map with a per-channel gate, and all nodes from the pool to the gate (rule 5)."""
    products: set[fx.Node] = set()
    int8: set[fx.Node] = set()
    floats: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if not is_call(node, {_A.mul.Tensor}) or len(node.args) < 2:
            continue
        operands = [
            item for item in node.args[:2] if isinstance(item, fx.Node) and item in facts and item.op != "get_attr"
        ]
        if len(operands) != 2 or facts[node].ndim != 4:
            continue
        gate = [item for item in operands if _is_pixel(facts[item]) and facts[item].shape[1] == facts[node].shape[1]]
        if len(gate) != 1 or _is_pixel(facts[node]):
            continue
        found = _branch(gate[0], facts)
        if not any(is_call(item, POOL_AVERAGE) for item in found):
            continue
        (features,) = (item for item in operands if item is not gate[0])
        by_activation = rules.squeeze_excite == "by-activation" and not _is_silu(features)
        if rules.squeeze_excite == "int8" or by_activation:
            products.add(node)
            int8 |= found
        else:
            floats |= found
    return _Gates(int8=frozenset(int8), products=frozenset(products), floats=frozenset(floats))


def _is_silu(node: fx.Node) -> bool:
    """Whether a tensor comes out of ``x * sigmoid(x)``, as one operator or as two."""
    while moves_only(node):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    if is_call(node, {_A.mul.Tensor}):
        first, second = node.args[:2]
        pairs = ((first, second), (second, first))
        return any(is_call(gate, {_A.sigmoid.default}) and gate.args[0] is x for x, gate in pairs)  # type: ignore[union-attr]
    return is_call(node, {_A.silu.default})


def _branch(gate: fx.Node, facts: Facts) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [gate]
    while waiting:
        node = waiting.pop()
        if node in found or node not in facts or node.op != "call_function":
            continue
        found.add(node)
        if not is_call(node, POOL_AVERAGE):
            waiting += [
                item
                for item in node.all_input_nodes
                if item in facts and (facts[item].ndim < 4 or _is_pixel(facts[item]))
            ]
            waiting += [item for item in node.all_input_nodes if is_call(item, POOL_AVERAGE)]
    return found


def _is_pixel(fact: torch.Tensor) -> bool:
    return fact.ndim == 4 and fact.shape[2] == 1 and fact.shape[3] == 1


def _root(node: fx.Node) -> fx.Node:
    """Follows operators that only move values, and fused activations, back to what made the values."""
    while moves_only(node) or is_call(node, ACTIVATIONS_FUSED):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node


def _sites(source: fx.Node, role: Role, facts: Facts, ties: _Ties) -> tuple[Site, ...]:
    """Where ``source`` is quantized: hoisted to where it is made; a concatenation's inputs, tied (rule 4)."""
    if role == "linear":
        # Rule 1's exception: a linear's quantization stays at its input.
        return (Site(node=source, role=role),)
    while moves_only(source):
        before = source.args[0]
        assert isinstance(before, fx.Node)
        source = before
    if is_call(source, {_A.cat.default}):
        parts = source.args[0]
        assert isinstance(parts, (list, tuple))
        if all(isinstance(part, fx.Node) and part in facts and part.op != "get_attr" for part in parts):
            sites = [site for part in parts if isinstance(part, fx.Node) for site in _sites(part, role, facts, ties)]
            ties.tie(sites)
            return tuple(sites)
    return (Site(node=source, role=role),)


class _Ties:
    """Union-find over sites."""

    def __init__(self) -> None:
        self._parent: dict[Site, Site] = {}

    def tie(self, sites: list[Site]) -> None:
        for site in sites[1:]:
            first, other = self._find(sites[0]), self._find(site)
            if first != other:
                self._parent[other] = first

    def groups(self, sites: list[Site]) -> tuple[tuple[Site, ...], ...]:
        groups: dict[Site, dict[Site, None]] = {}
        for site in sites:
            groups.setdefault(self._find(site), {})[site] = None
        return tuple(tuple(group) for group in groups.values())

    def _find(self, site: Site) -> Site:
        while site in self._parent:
            site = self._parent[site]
        return site


def _kind(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]
