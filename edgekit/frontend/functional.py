"""In-place operators out of a graph: every write becomes a new value, and views of what was written follow it.

``torch.export`` keeps ``relu_``, ``add_`` and writes through views (``x[:, 0] = 0``) as they are. Its own
functionalisation would also take batch norm apart and drop dropout, which training passes need, so this one does that
one thing. Which values share memory comes from a run on fake tensors (:mod:`edgekit.frontend.aliasing`), not from a
table of operators, since ``reshape``, ``contiguous`` or ``dropout`` may or may not copy.

The rules, for a storage whose first value is its *root* and whose other values are views of it, each made from a
*parent*:

1. A write through a value gives it a new node, then rewrites its parents up to the root by the view's inverse.
2. A value whose storage was written since it was made is made again from its parent when it is next read.
3. A write through a view without a known inverse is an error, never a guess.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.errors import ModelError
from edgekit.frontend.aliasing import Facts, functional_form
from edgekit.frontend.views import scattered
from edgekit.program import Skipped

__all__ = ["Functional", "functionalized"]

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Functional:
    """A graph without writes.

    Attributes:
        graph: The graph.
        rewritten: How many in-place operators were replaced.
        skipped: Writes to buffers, which an engine cannot keep.
    """

    graph: fx.Graph
    rewritten: int
    skipped: tuple[Skipped, ...]


def functionalized(module: fx.GraphModule, facts: Facts) -> Functional:
    """Returns ``module``'s graph with every in-place operator replaced by its functional form.

    Args:
        module: Placeholders, ``get_attr`` and ``call_function`` nodes of ATen operators.
        facts: Of the same graph, from :func:`edgekit.frontend.aliasing.fake_run`.

    Raises:
        ModelError: A write that cannot be expressed, or a model whose answer depends on what an earlier call left in a
            buffer.
    """
    return _Rewriter(module, facts).run()


class _Rewriter:
    def __init__(self, module: fx.GraphModule, facts: Facts) -> None:
        self.module = module
        self.facts = facts
        self.graph = fx.Graph()
        self.value: dict[fx.Node, fx.Node] = {}
        self.made: dict[fx.Node, int] = {}
        self.parent: dict[fx.Node, fx.Node] = {}
        self.root: dict[int, fx.Node] = {}
        self.version: dict[int, int] = {}
        # Outputs of one operator that share memory with each other, not with an input: no rule relates them.
        self.siblings: set[fx.Node] = set()
        self.rewritten = 0

    def run(self) -> Functional:
        written: dict[int, fx.Node] = {}
        for node in self.module.graph.nodes:
            if node.op == "output":
                self.graph.output(fx.map_arg(node.args[0], self.read))
                continue
            if _mutates(node):
                destination = self.write(node)
                if destination.op == "get_attr":
                    written[self.storage(destination)] = destination
            else:
                self.emit(node)
        self.graph.eliminate_dead_code()
        return Functional(graph=self.graph, rewritten=self.rewritten, skipped=self.state(list(written.values())))

    def state(self, written: list[fx.Node]) -> tuple[Skipped, ...]:
        """An answer that depends on a buffer that the model also writes would change from call to call: refuse it."""
        left = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        skipped = []
        for node in written:
            if node.target in left:
                raise ModelError(
                    f"the model keeps state: its answer depends on the buffer '{node.target}', which it also changes",
                    hint="return the state and take it as an input instead; an engine remembers nothing between calls",
                )
            skipped.append(Skipped(what="write to a buffer", where=str(node.target), why="no output depends on it"))
        return tuple(skipped)

    def storage(self, node: fx.Node) -> int:
        found = self.facts.storage(node)
        if found is None:
            raise ModelError(f"node '{node.name}' writes to something that is not a tensor")
        return found

    def emit(self, node: fx.Node) -> None:
        storage = self.facts.storage(node)
        if storage is None or storage not in self.root:
            self.value[node] = self.graph.node_copy(node, self.read)
            if storage is not None:
                self.root[storage] = node
                self.version[storage] = 0
        else:
            self.parent[node] = self.origin(node, storage)
            # A piece of a tensor that was written after it was split must come from a new split.
            stale = node.target is operator.getitem and self.version[storage] > 0
            source = self.read(self.parent[node])
            self.value[node] = self.again(node, source) if stale else self.graph.node_copy(node, self.read)
        if storage is not None:
            self.made[node] = self.version[storage]

    def origin(self, node: fx.Node, storage: int) -> fx.Node:
        """Returns the argument whose memory a view shows; for a piece of a split tensor, the tensor that was split."""
        source = node.args[0] if node.target is operator.getitem and isinstance(node.args[0], fx.Node) else node
        for candidate in (*source.all_input_nodes, *node.all_input_nodes):
            if self.facts.storage(candidate) == storage:
                return candidate
        if node.op == "call_function":
            self.siblings.add(node)
        return self.root[storage]

    def read(self, node: fx.Node) -> fx.Node:
        storage = self.facts.storage(node)
        if storage is None or self.made[node] == self.version[storage]:
            return self.value[node]
        source = self.read(self.parent[node])
        self.value[node] = self.again(node, source)
        self.made[node] = self.version[storage]
        return self.value[node]

    def again(self, node: fx.Node, source: fx.Node) -> fx.Node:
        parent = self.parent[node]
        if node in self.siblings:
            raise _unsupported(node)
        if _mutates(node) or node.op != "call_function":
            return source
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node) and node.args[0] is not parent:
            pieces = self.graph.node_copy(node.args[0], lambda arg: source if arg is parent else self.read(arg))
            return self.graph.call_function(operator.getitem, (pieces, node.args[1]))
        return self.graph.node_copy(node, lambda arg: source if arg is parent else self.read(arg))

    def write(self, node: fx.Node) -> fx.Node:
        """Replaces one in-place node; returns the root of the storage that it writes."""
        target = node.args[0]
        if not isinstance(target, fx.Node) or self.facts.storage(target) is None:
            raise _unsupported(node)
        storage = self.storage(target)
        new = self.computed(node, target)
        chain = [target]
        while chain[-1] in self.parent:
            chain.append(self.parent[chain[-1]])
        before = [self.read(link) for link in chain]
        self.version[storage] += 1
        for child, parent, old in zip(chain, [*chain[1:], None], [*before[1:], None], strict=True):
            self.value[child], self.made[child] = new, self.version[storage]
            if child in self.siblings:
                raise _unsupported(node)
            if parent is not None and old is not None:
                same = _mutates(child) or self.facts.values[child] is self.facts.values[parent]
                new = (
                    new if same else scattered(self.graph, child, parent, self.facts, old=old, new=new, read=self.read)
                )
        self.value[node], self.made[node] = self.value[target], self.version[storage]
        self.parent[node] = target
        self.rewritten += 1
        return chain[-1]

    def computed(self, node: fx.Node, target: fx.Node) -> fx.Node:
        """Emits the functional form and returns the written value, in the tensor's own dtype and shape."""
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.read)
        special = self.plain(node, target, args)
        if special is not None:
            return special
        form = functional_form(node.target)
        if form is None:
            raise _unsupported(node)
        name = re.sub(r"_(?=_\d|$)", "", node.name)
        new = self.graph.create_node("call_function", form, args, kwargs, name=name)
        new.meta = dict(node.meta)
        if node in self.facts.promoted:
            new = self.graph.call_function(aten.to.dtype, (new, self.facts.promoted[node]))
        return new

    def plain(self, node: fx.Node, target: fx.Node, args: Any) -> fx.Node | None:
        """Writes that replace the whole value, in operators that every backend knows."""
        if node.target in (aten.detach_.default, aten.requires_grad_.default):
            return self.read(target)
        if node.target is aten.zero_.default:
            return self.graph.call_function(aten.zeros_like.default, (args[0],))
        if node.target is aten.fill_.Scalar:
            return self.graph.call_function(aten.full_like.default, (args[0], args[1]))
        if node.target is aten.fill_.Tensor:
            zeros = self.graph.call_function(aten.zeros_like.default, (args[0],))
            return self.graph.call_function(aten.add.Tensor, (zeros, args[1]))
        if node.target is aten.copy_.default:
            given = node.args[1]
            mine, source = (
                self.facts.values[target],
                self.facts.values.get(given) if isinstance(given, fx.Node) else None,
            )
            if isinstance(source, torch.Tensor) and (source.shape, source.dtype) == (mine.shape, mine.dtype):
                return args[1]  # type: ignore[no-any-return]
        return None


def _mutates(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(arg.alias_info is not None and arg.alias_info.is_write for arg in node.target._schema.arguments)


def _unsupported(node: fx.Node) -> ModelError:
    return ModelError(
        f"in-place operator {node.target} at '{node.name}' has no functional form",
        hint="write it without the in-place operator",
    )
