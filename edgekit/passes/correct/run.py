"""One graph over a list of batches, node by node: what stepping through two graphs side by side is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import is_call
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.samples import Batch

__all__ = ["Run"]


class Run:
    """One graph over a list of batches. A value lives until its last reader has run, as in ``fx.Interpreter``.

    A tensor behind a pair is kept as the integers that it consists of: a quarter of the memory, and the same values bit
    by bit when it is read.

    What depends on no image (a weight, the pair behind it) is computed when it is first read, not in its turn: until
    then it may be changed.

    Attributes:
        graph: The graph; its tensors may change while it runs, its nodes' arguments too.
        nodes: Those that it had at the beginning.
    """

    def __init__(self, graph: fx.GraphModule, batches: Sequence[Batch]) -> None:
        self.graph = graph
        self.nodes: list[fx.Node] = list(graph.graph.nodes)
        inputs = [node for node in self.nodes if node.op == "placeholder"]
        self._values: list[dict[fx.Node, Any]] = [dict(zip(inputs, batch, strict=True)) for batch in batches]
        self._constant: dict[fx.Node, bool] = {}
        for node in self.nodes:
            self.is_constant(node)
        self._constants: dict[fx.Node, Any] = {}
        self._dies: dict[fx.Node, list[fx.Node]] = {}
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            for item in node.all_input_nodes:
                last[item] = node
        for item, reader in last.items():
            self._dies.setdefault(reader, []).append(item)

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a node depends on no image."""
        if node not in self._constant:
            self._constant[node] = node.op == "get_attr" or (
                node.op == "call_function" and all(self.is_constant(item) for item in node.all_input_nodes)
            )
        return self._constant[node]

    def knows(self, node: fx.Node) -> bool:
        """Whether a node's value has been computed and is still needed."""
        return self.is_constant(node) or all(node in values for values in self._values)

    def value(self, node: fx.Node, batch: int) -> Any:
        """The value of a node that is still needed."""
        if not self.is_constant(node):
            stored = self._values[batch][node]
            return stored.unpacked() if isinstance(stored, _Packed) else stored
        if node.op == "get_attr":
            owner: Any = self.graph
            for part in str(node.target).split("."):
                owner = getattr(owner, part)
            return owner
        if node not in self._constants:
            self._constants[node] = self.call(node, batch)
        return self._constants[node]

    def call(self, node: fx.Node, batch: int, *, instead: Mapping[fx.Node, Any] | None = None) -> Any:
        """Computes a node, with other values ``instead`` of some of its arguments."""
        known = {} if instead is None else instead

        def look_up(item: fx.Node) -> Any:
            return known[item] if item in known else self.value(item, batch)

        if node.op == "output":
            return fx.map_arg(node.args[0], look_up)
        assert node.op == "call_function"
        assert callable(node.target)
        return node.target(*fx.map_arg(node.args, look_up), **fx.map_arg(node.kwargs, look_up))

    def execute(self, node: fx.Node, batch: int) -> None:
        """Computes a node and keeps its value."""
        if node.op == "placeholder" or self.is_constant(node) or node in self._values[batch]:
            return
        value = self.call(node, batch)
        if is_call(node, {QDQ}):
            _, scale, zero_point, axis = node.args[:4]
            assert isinstance(scale, fx.Node)
            assert isinstance(zero_point, fx.Node)
            if axis == -1:
                value = _Packed.of(value, self.value(scale, batch), self.value(zero_point, batch))
        self._values[batch][node] = value

    def release(self, node: fx.Node, batch: int) -> tuple[fx.Node, ...]:
        """Frees what ``node`` was the last to read, and its own value if nothing reads it; returns what was freed."""
        dead = (*self._dies.get(node, ()), *(() if node.users or node.op == "output" else (node,)))
        for item in dead:
            self._values[batch].pop(item, None)
            if batch == len(self._values) - 1:
                self._constants.pop(item, None)
        return dead

    def held(self, batch: int) -> list[int]:
        """How many bytes each value of a batch takes that is in memory."""
        stored = [item.codes if isinstance(item, _Packed) else item for item in self._values[batch].values()]
        return [item.nbytes if isinstance(item, torch.Tensor) else 0 for item in stored]

    def forget(self, node: fx.Node) -> None:
        """Drops a constant that has changed."""
        self._constants.pop(node, None)


@dataclass(frozen=True, kw_only=True)
class _Packed:
    """A tensor behind a per-tensor pair: ``scale * (codes - zero_point)``."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor

    @staticmethod
    def of(value: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> _Packed:
        # The quotient is off by a rounding error at most, and the nearest integer is what the pair multiplied.
        codes = (value / scale).round_().add_(zero_point.to(value.dtype)).to(zero_point.dtype)
        return _Packed(codes=codes, scale=scale, zero_point=zero_point)

    def unpacked(self) -> torch.Tensor:
        """The arithmetic of ``edgekit::qdq``, so that the result is the same."""
        return self.codes.to(self.scale.dtype).sub_(self.zero_point.to(self.scale.dtype)).mul_(self.scale)
