"""Measures what float16 does to each node: one pass of images, every node computed in float32 and in half side by side.

Each node is given the float32 program's values, rounded, so that an error is the node's own and not that of nodes
before it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx

from edgekit.passes.aten import DROPOUT, SHAPE_ONLY, is_call, operator_name, origin_name
from edgekit.passes.half.arithmetic import LARGEST, computed_in_half, inner_peak, rounded, rounded_scalars
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.samples import Batch
from edgekit.program import Program
from edgekit.progress import ProgressTask

__all__ = ["NodeError", "measure_half"]

# Pairs stay float32 in any case, and sizes are no tensors.
_NOT_MEASURED = frozenset({QDQ, torch.ops.aten.sym_size.int})
# What they give of rounded values is rounded: a look at the peak is enough.
_EXACT = frozenset({torch.ops.aten.relu.default})
# A choice: images that were not measured may go this far beyond those that were.
_HEADROOM = 2.0


@dataclass(frozen=True, kw_only=True)
class NodeError:
    """What float16 does to one node.

    Attributes:
        node: Its name in the graph.
        layer: Dotted name of the module that it comes from, or the node's name where that is the model itself.
        operator: Its operator's bare name.
        moves: Whether it only moves values.
        peak: Largest absolute value that float16 would have to hold for it.
        peak_of: Which value that is.
        error: ``||half - float32|| / ||float32||`` of its result, infinite where half gives no number, or anything but
            the zeros that float32 gives.
        cause: ``overflow``: the peak is beyond float16's largest value, with a factor of two to spare for images that
            were not measured, or half gives no number; ``error``: above the limit; ``input``: what reads it needs it
            finer than float16; empty: none.
        depends_on: For ``error`` that the rounding of its inputs alone makes: the nodes that give them.
    """

    node: str
    layer: str
    operator: str
    moves: bool
    peak: float
    peak_of: str
    error: float
    cause: Literal["", "overflow", "error", "input"] = ""
    depends_on: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """The cause with its number."""
        if self.cause == "overflow" and self.peak > LARGEST:
            return f"overflow: |x| reached {self.peak:.4g} ({self.peak_of}), float16 holds {LARGEST:.0f}"
        if self.cause == "overflow" and self.peak > LARGEST / _HEADROOM:
            return f"overflow: |x| reached {self.peak:.4g} ({self.peak_of}), too close to float16's {LARGEST:.0f}"
        if self.cause == "overflow":
            return "overflow: in float16 it gives no number"
        if self.cause == "input":
            return "gives what another of these reads, which needs it finer than float16"
        return f"error: in float16 its result is off by {100 * self.error:.2g} % (relative L2)"


def measure_half(
    program: Program, batches: Iterable[Batch], *, limit: float, bar: ProgressTask | None = None
) -> tuple[NodeError, ...]:
    """Runs images through a program, each node in float32 and in half.

    Args:
        program: Folded; quantized where its int8 layers are to stay.
        batches: Inputs, in the program's types.
        limit: Relative L2 error from which a node's result is ``error``: what the whole program may be off by. One
            rounding to float16 makes about 2e-4 (2^-11 over the square root of 3, over the root mean square of a
            significand, 1.5), so a node that reaches a limit of 0.01 magnifies rounding fiftyfold.
        bar: Advanced by one for each batch.

    Returns:
        One record for each node that computes or moves floats, in graph order.
    """
    watcher = _SideBySide(program.graph, limit)
    for batch in batches:
        with torch.no_grad():
            watcher.run(*batch)
        if bar is not None:
            bar.advance()
    return _with_inputs(program.graph, watcher.records())


@dataclass
class _Sums:
    """What is known of one node so far."""

    peak: float = 0.0
    peak_of: str = ""
    noise: float = 0.0
    signal: float = 0.0
    depends_on: tuple[str, ...] = ()


class _SideBySide(fx.Interpreter):
    """Runs a graph in float32; computes each node a second time as half would.

    Values are dropped after their last use, as an interpreter does: no more than a few layers' are held.
    """

    def __init__(self, graph: fx.GraphModule, limit: float) -> None:
        super().__init__(graph)
        self._graph = graph
        self._limit = limit
        self._sums: dict[fx.Node, _Sums] = {}
        # Of each node's result: many read it, one looks at it.
        self._peaks: dict[fx.Node, float] = {}

    def run_node(self, node: fx.Node) -> Any:
        arguments: Any = ()
        keywords: Mapping[str, Any] = {}
        measured = node.op == "call_function" and not is_call(node, _NOT_MEASURED)
        if measured:
            arguments, keywords = self.fetch_args_kwargs_from_env(node)
        result = super().run_node(node)
        tensors = _floats(result)
        self._peaks[node] = max((_peak(item) for item in tensors), default=0.0)
        if measured and (tensors or any(self._peaks[item] for item in node.all_input_nodes)):
            self._measure(node, arguments, keywords, result)
        return result

    def records(self) -> tuple[NodeError, ...]:
        """What was seen, in graph order."""
        return tuple(self._record(node, sums) for node, sums in self._sums.items())

    def _measure(self, node: fx.Node, arguments: Any, keywords: Mapping[str, Any], result: Any) -> None:
        sums = self._sums.setdefault(node, _Sums())
        self._see_peak(sums, self._peaks[node], "its result")
        for item in node.all_input_nodes:
            self._see_peak(sums, self._peaks[item], "its weight" if item.op == "get_attr" else "its input")
        tensors = _floats(result)
        if not tensors or _moves(node) or is_call(node, _EXACT):
            return
        inner = inner_peak(node, arguments, keywords, result)
        if inner is not None:
            self._see_peak(sums, inner.peak, inner.what)
        coarse = fx.node.map_aggregate(arguments, _rounded)
        try:
            half = _floats(computed_in_half(node, rounded_scalars(node, coarse), keywords))
        except RuntimeError:  # torch has no such kernel
            noise, signal = math.inf, 1.0
        else:
            noise, signal = _noise(half, tensors)
        sums.noise += noise
        sums.signal += signal
        if noise > self._limit**2 * signal and math.isfinite(noise):
            sums.depends_on = self._sensitive_inputs(node, keywords, tensors)

    @staticmethod
    def _see_peak(sums: _Sums, peak: float, what: str) -> None:
        if peak > sums.peak:
            sums.peak, sums.peak_of = peak, what

    def _sensitive_inputs(
        self, node: fx.Node, keywords: Mapping[str, Any], tensors: list[torch.Tensor]
    ) -> tuple[str, ...]:
        """The nodes whose rounded results alone make most of the error; what they are computed from may stay half."""
        givers = [item for item in node.all_input_nodes if item.op == "call_function"]

        def fetched(item: fx.Node) -> Any:
            value = self.env[item]
            return _rounded(value) if item in givers else value

        assert callable(node.target)
        noise, signal = _noise(_floats(node.target(*fx.map_arg(node.args, fetched), **keywords)), tensors)
        return tuple(item.name for item in givers) if 4 * noise > self._limit**2 * signal else ()

    def _record(self, node: fx.Node, sums: _Sums) -> NodeError:
        error = math.sqrt(sums.noise / sums.signal) if sums.signal > 0 else (math.inf if sums.noise > 0 else 0.0)
        cause: Literal["", "overflow", "error"] = ""
        if sums.peak > LARGEST / _HEADROOM or math.isinf(sums.noise):
            cause = "overflow"
        elif error > self._limit:
            cause = "error"
        return NodeError(
            node=node.name,
            layer=origin_name(node),
            operator=operator_name(node),
            moves=_moves(node),
            peak=sums.peak,
            peak_of=sums.peak_of,
            error=error,
            cause=cause,
            depends_on=sums.depends_on if cause == "error" else (),
        )


def _with_inputs(graph: fx.GraphModule, records: tuple[NodeError, ...]) -> tuple[NodeError, ...]:
    """Marks the nodes that give what a marked one needs in float32, through what only moves values."""
    nodes = {node.name: node for node in graph.graph.nodes}
    found = {item.node: item for item in records}
    waiting = [name for item in records for name in item.depends_on]
    while waiting:
        item = found.get(waiting.pop())
        if item is None or item.cause:
            continue
        found[item.node] = replace(item, cause="input")
        if item.moves:
            waiting += [giver.name for giver in nodes[item.node].all_input_nodes if giver.op == "call_function"]
    return tuple(found.values())


def _moves(node: fx.Node) -> bool:
    return is_call(node, SHAPE_ONLY) or is_call(node, DROPOUT) or node.target is operator.getitem


def _rounded(value: Any) -> Any:
    return rounded(value) if isinstance(value, torch.Tensor) else value


def _floats(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    return [item for part in value for item in _floats(part)] if isinstance(value, (tuple, list)) else []


def _peak(tensor: torch.Tensor) -> float:
    """The largest finite absolute value: float16 holds infinity, so a mask of it is no overflow."""
    if tensor.numel() == 0:
        return 0.0
    low, high = torch.aminmax(tensor.detach())
    peak = max(-float(low), float(high))
    if math.isfinite(peak):
        return peak
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _noise(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> tuple[float, float]:
    """Squared error and squared signal over all tensors; the error is infinite where only the reference is finite."""
    noise = signal = 0.0
    for one, other in zip(actual, expected, strict=True):
        # The square root of the sum of squared differences, without a tensor of differences.
        off, size = float(torch.dist(one, other)) ** 2, float(torch.linalg.vector_norm(other)) ** 2
        if not math.isfinite(off):
            known = other.isfinite()
            if not bool(one[known].isfinite().all()) or not bool((one[~known] == other[~known]).all()):
                return math.inf, 1.0
            off, size = (float(torch.linalg.vector_norm(item[known])) ** 2 for item in (one - other, other))
        noise, signal = noise + off, signal + size
    return noise, signal
