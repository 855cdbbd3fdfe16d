"""Streams images through a float graph, and lets whoever asks see every tensor as it comes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, Operators, is_call
from edgekit.passes.samples import Batch

__all__ = ["Streamer"]

_A = torch.ops.aten
# Elementwise operators, with the form that writes over its first argument.
_IN_PLACE: Mapping[Callable[..., Any], Callable[..., Any]] = {
    _A.relu.default: _A.relu_.default,
    _A.hardtanh.default: _A.hardtanh_.default,
    _A.clamp.default: _A.clamp_.default,
    _A.silu.default: _A.silu_.default,
    _A.hardswish.default: _A.hardswish_.default,
    _A.leaky_relu.default: _A.leaky_relu_.default,
    _A.add.Tensor: _A.add_.Tensor,
    _A.minimum.default: _A.clamp_max_.Tensor,  # the bounds per channel that equalization makes of ReLU6
}
# Operators whose result lies in memory of its own: it is no view of anything that is still read.
_FRESH: Operators = frozenset({*COMPUTE, *_IN_PLACE})


class Streamer(fx.Interpreter):
    """Runs a graph up to the last node that matters; what follows is not computed.

    An activation or a sum is written over the result of the layer before it, where nobody else reads that, because
    fetching fresh memory takes time. So :meth:`saw` must not keep a tensor, only what it makes of it.

    Args:
        graph: The float graph.
        last: The last node that matters; None for all.
        spared: Nodes whose arguments are still looked at when they have run.
    """

    def __init__(self, graph: fx.GraphModule, *, last: fx.Node | None = None, spared: Collection[fx.Node] = ()) -> None:
        super().__init__(graph)
        self._last = last
        self._done = False
        self._over = {node for node in graph.graph.nodes if node not in spared and _may_write_over(node)}

    def stream(self, batch: Batch) -> None:
        """Runs one batch; what the nodes give is for :meth:`saw`."""
        self._done = False
        with torch.no_grad():
            self.run(*batch)

    def run_node(self, node: fx.Node) -> Any:
        if self._done:
            return None
        result = self._written_over(node) if node in self._over else super().run_node(node)
        self.saw(node, result)
        self._done = node is self._last
        return result

    def saw(self, node: fx.Node, result: Any) -> None:
        """Is told what each node gave."""

    def _written_over(self, node: fx.Node) -> Any:
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        first, *others = arguments
        # What is written over keeps its type: integers and a fraction would not.
        fits = first.is_floating_point() and all(
            item.dtype == first.dtype and _spreads_over(item.shape, first.shape)
            for item in others
            if isinstance(item, torch.Tensor)
        )
        assert callable(node.target)
        target = _IN_PLACE[node.target] if fits else node.target
        return target(*arguments, **keywords)


def _spreads_over(shape: torch.Size, over: torch.Size) -> bool:
    """Whether a tensor of one shape, spread over one of another, gives that other shape."""
    ends = zip(reversed(shape), reversed(over), strict=False)
    return len(shape) <= len(over) and all(size in (1, other) for size, other in ends)


def _may_write_over(node: fx.Node) -> bool:
    if not is_call(node, _IN_PLACE.keys()):
        return False
    first = node.args[0] if node.args else None
    return (
        isinstance(first, fx.Node)
        and is_call(first, _FRESH)
        and list(first.users) == [node]
        and first not in [*node.args[1:], *node.kwargs.values()]
    )
