"""Runs the rules of the operators over a graph, so that every value and parameter has its labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import fx

from edgekit.errors import InternalError
from edgekit.passes.aten import layer_name, read_tensor
from edgekit.passes.prune.labels import Axis, Frozen, IntArray, Labels, Value
from edgekit.passes.prune.shapes import BATCH, Sizes, Tree, read_sizes
from edgekit.program import Program

__all__ = ["Cost", "Family", "Flow", "Role", "Rule", "named", "set_named", "trace", "where"]

Role = Literal["out", "in", "along"]
"""What a dimension of a parameter does: it produces the labels of a sum's results (``out``), it takes what others
produced (``in``), or it runs along with them (``along``: biases, scales, statistics, depthwise kernels)."""

Rule = Callable[["Flow", fx.Node], Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Operators that labels pass in the same way.

    Attributes:
        title: For the documentation's table.
        operators: The ATen overloads.
        rule: Returns the labels of the result: a value, or a list of them for several results.
        repair: Rewrites a node whose arguments hold sizes, once labels are gone; None where no argument does.
    """

    title: str
    operators: Collection[Callable[..., Any]]
    rule: Rule
    repair: Callable[[Any, fx.Node], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-accumulates of a node for one image: ``factor`` times the number of labels left on each of ``axes``."""

    node: fx.Node
    factor: float
    axes: tuple[IntArray, ...]


@dataclass(kw_only=True)
class Flow:
    """Labels of everything in one graph.

    Attributes:
        program: The program, which is left as it is.
        sizes: Of every node's value.
        labels: The classes.
        values: Node to its value, or to the list of its results.
        parameters: Name of a parameter or buffer to its labels; shared tensors have one name.
        names: Name on the graph to the name in ``parameters``.
        roles: What each dimension of a parameter does.
        consumed: Labels that a sum without a parameter takes (attention's scores).
        costs: The arithmetic.
        pieces: Dimensions of values that must not become empty.
        unknown: Operators without a rule.
    """

    program: Program
    sizes: Sizes
    labels: Labels = field(default_factory=Labels)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    parameters: dict[str, Value] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    roles: dict[tuple[str, int], set[Role]] = field(default_factory=dict)
    consumed: list[IntArray] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    pieces: list[IntArray] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    # What rules ask.

    def value(self, node: Any) -> Value:
        """Returns the labels of a node's tensor.

        Raises:
            InternalError: The node's result is no single tensor.
        """
        found = self.values.get(node)
        if not isinstance(found, tuple):
            raise InternalError(f"node '{node}' has no tensor result that labels could be on")
        return found

    def shape(self, node: Any) -> tuple[int, ...]:
        """Returns the sizes of a node's tensor; the batch is :data:`BATCH` where it is dynamic."""
        found = self.sizes[node]
        if not isinstance(found, tuple):
            raise InternalError(f"node '{node}' is no tensor")
        return found

    def is_tensor(self, item: Any) -> bool:
        """Whether an argument is a node whose value is one tensor."""
        return isinstance(item, fx.Node) and isinstance(self.sizes.get(item), tuple)

    def blank(self, node: fx.Node) -> Any:
        """Returns a result without any labels, of the node's own structure."""
        return _blank(self.sizes[node])

    # What rules say.

    def freeze(self, axis: Axis | None, node: fx.Node, why: str) -> None:
        """Keeps what is on a dimension."""
        if axis is not None:
            self.labels.freeze(axis.labels, Frozen(where=where(node), why=why))

    def freeze_value(self, item: Any, node: fx.Node, why: str) -> None:
        """Keeps everything on a value, or on each of several results."""
        if isinstance(item, Axis):
            self.freeze(item, node, why)
        elif isinstance(item, (tuple, list)):
            for part in item:
                self.freeze_value(part, node, why)

    def same(self, left: Axis | None, right: Axis | None, node: fx.Node, why: str) -> None:
        """Makes two dimensions one; beside a dimension without labels, the other one stays."""
        if left is None or right is None or len(left.labels) != len(right.labels):
            self.freeze(left, node, why)
            self.freeze(right, node, why)
        else:
            self.labels.unify(left.labels, right.labels)

    def sum_over(self, axis: Axis | None, weight: Axis | None, node: fx.Node) -> None:
        """A dimension of an activation is summed over, each element with its own slice of a parameter."""
        if axis is not None and not axis.zero:
            self.freeze(axis, node, "what it sums over is not zero where a channel is gone")
        self.same(axis, weight, node, "what it sums over has no channels of its own")

    def parameter(self, node: Any, *roles: Role) -> Value:
        """Returns the labels of a parameter and notes what its dimensions do.

        A weight that is computed in the graph is frozen: its producers are not the layer's to remove.
        """
        if not isinstance(node, fx.Node):
            return ()
        if node.op != "get_attr":
            value = self.value(node)
            self.freeze_value(value, node, "it becomes a weight, which is computed")
            return tuple(None for _ in value)
        name = self.names[str(node.target)]
        for position, role in enumerate(roles):
            self.roles.setdefault((name, position), set()).add(role)
        return self.parameters[name]

    def spend(self, node: fx.Node, factor: float, *axes: Axis | int | None) -> None:
        """Notes the multiply-accumulates of a node: ``factor`` times each of ``axes`` (labels, or a plain size)."""
        for axis in axes:
            factor *= axis if isinstance(axis, int) else 1
        labelled = tuple(axis.labels for axis in axes if isinstance(axis, Axis))
        self.costs.append(Cost(node=node, factor=factor, axes=labelled))

    def per_image(self, node: Any) -> int:
        """Returns how many elements a node's tensor has for one image."""
        sizes = self.shape(node)
        count = int(np.prod(sizes)) if sizes else 1
        # The batch may be merged with windows or heads; it is a prime that no other size holds.
        return count // BATCH if count % BATCH == 0 else count

    def keep_some(self, axis: Axis | None) -> None:
        """Says that a dimension may shrink but not vanish."""
        if axis is not None:
            self.pieces.append(axis.labels)


def trace(program: Program, families: Mapping[Any, Family]) -> Flow:
    """Labels a program.

    Args:
        program: With float inputs, before anything is folded or quantized.
        families: Operator to its family.
    """
    flow = Flow(program=program, sizes=read_sizes(program))
    owners: dict[int, str] = {}
    for node in program.graph.graph.nodes:
        if node.op == "placeholder":
            flow.values[node] = flow.blank(node)
        elif node.op == "get_attr":
            flow.values[node] = _attribute(flow, node, owners)
        elif node.op == "output":
            for item in node.all_input_nodes:
                flow.freeze_value(flow.values[item], node, "it is an output of the network")
        else:
            flow.values[node] = _call(flow, node, families)
    return flow


def _attribute(flow: Flow, node: fx.Node, owners: dict[int, str]) -> Value:
    tensor = read_tensor(flow.program.graph, node)
    name = owners.setdefault(id(tensor), str(node.target))
    flow.names[str(node.target)] = name
    if name not in flow.parameters:
        labelled = tensor.is_floating_point()
        flow.parameters[name] = tuple(
            Axis(labels=flow.labels.fresh(size)) if labelled and size > 1 else None for size in tensor.shape
        )
    return flow.parameters[name]


def _call(flow: Flow, node: fx.Node, families: Mapping[Any, Family]) -> Any:
    if flow.sizes[node] is None:
        return None  # a size, not a tensor
    family = families.get(node.target)
    result = None if family is None else family.rule(flow, node)
    if result is None:
        flow.unknown.setdefault(str(node.target), where(node))
        for item in node.all_input_nodes:
            flow.freeze_value(flow.values.get(item), node, f"pruning has no rule for {node.target}")
        return flow.blank(node)
    return result


def where(node: fx.Node) -> str:
    """Returns what people call a node: its layer where it has one, else its name."""
    return layer_name(node) if node.op == "call_function" else node.name


def named(node: fx.Node) -> dict[str, Any]:
    """Returns a call's arguments by the names of the operator's schema, defaults included."""
    target: Any = node.target
    found: dict[str, Any] = {}
    for position, item in enumerate(target._schema.arguments):
        if position < len(node.args):
            found[item.name] = node.args[position]
        elif item.name in node.kwargs:
            found[item.name] = node.kwargs[item.name]
        else:
            found[item.name] = item.default_value if item.has_default_value() else None
    return found


def set_named(node: fx.Node, name: str, value: Any) -> None:
    """Sets a call's argument by its name in the operator's schema."""
    target: Any = node.target
    for position, item in enumerate(target._schema.arguments):
        if item.name == name:
            if position < len(node.args):
                node.update_arg(position, value)
            else:
                node.update_kwarg(name, value)
            return
    raise InternalError(f"{node.target} has no argument '{name}'")


def _blank(sizes: Tree) -> Any:
    if isinstance(sizes, tuple):
        return tuple(None for _ in sizes)
    if isinstance(sizes, list):
        return [_blank(item) for item in sizes]
    return None
