"""Signal-to-noise ratios, and one batch through both graphs with every source of noise measured on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, CONV_TRANSPOSE, LINEAR, Operators, argument, is_call
from edgekit.passes.correct.lockstep import weight_pair
from edgekit.passes.correct.run import Run
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.samples import Batch

__all__ = ["NodeNoise", "Noise", "Walk", "noise_to_db"]

_A = torch.ops.aten
MEASURED: Operators = frozenset({*COMPUTE, _A.matmul.default, _A.bmm.default, _A.scaled_dot_product_attention.default})


@dataclass
class Noise:
    """Squared signal and squared error, summed over images."""

    signal: float = 0.0
    error: float = 0.0

    def add(self, reference: torch.Tensor, actual: torch.Tensor) -> None:
        """Adds a batch."""
        # In the tensors' own float32, without copies: far more exact than decibels are read.
        self.signal += float(torch.linalg.vector_norm(reference)) ** 2
        self.error += float(torch.linalg.vector_norm(actual - reference)) ** 2

    @property
    def ratio(self) -> float:
        """Error over signal: 0 for none, infinite where there is error and no signal."""
        if self.error == 0:
            return 0.0
        return self.error / self.signal if self.signal > 0 else math.inf

    @property
    def sqnr_db(self) -> float | None:
        """``10 log10(signal / error)``; None where it is infinite or no number."""
        return noise_to_db(self.ratio)


def noise_to_db(ratio: float) -> float | None:
    """Returns a noise-to-signal ratio as signal-to-noise in dB, None where that is infinite or no number."""
    return -10 * math.log10(ratio) if 0 < ratio < math.inf else None


@dataclass
class NodeNoise:
    """What was measured at one node that reads quantized tensors, or at one compute layer.

    Attributes:
        own: Its output when it alone is quantized (its inputs, its weight), on float inputs.
        accumulated: Its output in the quantized program against the float program.
        weight: Its output when its weight alone is quantized.
        balanced: The same, had all input channels been scaled to like size before the weight was rounded.
        inputs: By the node that it reads, its output when that input alone is quantized.
    """

    own: Noise = field(default_factory=Noise)
    accumulated: Noise = field(default_factory=Noise)
    weight: Noise = field(default_factory=Noise)
    balanced: Noise = field(default_factory=Noise)
    inputs: dict[fx.Node, Noise] = field(default_factory=dict)


class Walk:
    """Runs batches through both graphs, node by node, and sums up the noise.

    Beside the float and the quantized value of a tensor there is a third: the float one behind its pair. It is what a
    layer reads that alone is quantized.

    Memory: what both graphs need at one node, for one batch.

    Args:
        floating: The float graph.
        quantized: The same with pairs.
        twins: Nodes of the quantized graph, and the same in the float graph.

    Attributes:
        nodes: What was measured.
        pairs: By pair on an activation, the tensor before it against the one behind it.
        sizes: How many values each tensor of the quantized graph has, for one image or more.
        outputs: The network's outputs.
    """

    def __init__(self, floating: fx.GraphModule, quantized: fx.GraphModule, twins: dict[fx.Node, fx.Node]) -> None:
        self._floating, self._quantized, self._twins = floating, quantized, twins
        self.nodes: dict[fx.Node, NodeNoise] = {}
        self.pairs: dict[fx.Node, Noise] = {}
        self.sizes: dict[fx.Node, int] = {}
        self.outputs: list[Noise] = []
        self._balanced: dict[fx.Node, torch.Tensor] = {}

    def add(self, batch: Batch) -> None:
        """Runs one batch."""
        step = _Step(Run(self._floating, [batch]), Run(self._quantized, [batch]), self._twins)
        for node in step.quantized.nodes:
            twin = self._twins.get(node)
            if twin is None:
                made = step.insert(node)
                self._weigh(node, step)
                if made is not None and is_call(node, {QDQ}):
                    self.pairs.setdefault(node, Noise()).add(*made)
                continue
            step.advance(twin)
            inserted = {item: other for item, other in step.matched(node) if item in step.behind}
            layer = is_call(node, MEASURED)
            if node.op == "call_function" and (inserted or layer):
                self._measure(step, node, twin, inserted)
            step.quantized.execute(node, 0)
            step.floating.execute(twin, 0)
            self._weigh(node, step)
            if layer:
                self.nodes[node].accumulated.add(step.floating.value(twin, 0), step.quantized.value(node, 0))
            if node.op == "output":
                self._compare(step.floating.value(twin, 0), step.quantized.value(node, 0))
            step.release(node, twin)

    def _measure(self, step: _Step, node: fx.Node, twin: fx.Node, inserted: dict[fx.Node, fx.Node]) -> None:
        found = self.nodes.setdefault(node, NodeNoise())
        pair = weight_pair(node)
        if not inserted and pair is None:
            return
        step.floating.execute(twin, 0)
        reference = step.floating.value(twin, 0)
        plain = {item: step.floating.value(other, 0) for item, other in step.matched(node) if not step.constant(item)}
        behind = {item: step.behind[item] for item in inserted}
        found.own.add(reference, step.quantized.call(node, 0, instead=plain | behind))
        for item, other in inserted.items():
            alone = step.floating.call(twin, 0, instead={other: step.behind[item]})
            found.inputs.setdefault(item, Noise()).add(reference, alone)
        if pair is None:
            return
        found.weight.add(reference, step.quantized.call(node, 0, instead=plain))
        weight = twin.args[1]
        assert isinstance(weight, fx.Node)
        if node not in self._balanced:
            floats = step.floating.value(weight, 0), step.floating.value(twin.all_input_nodes[0], 0)
            self._balanced[node] = balanced_weight(node, pair, *floats)
        found.balanced.add(reference, step.floating.call(twin, 0, instead={weight: self._balanced[node]}))

    def _weigh(self, node: fx.Node, step: _Step) -> None:
        """Notes how many values a tensor has; the parts of a split count together."""
        value = None if step.constant(node) or not step.quantized.knows(node) else step.quantized.value(node, 0)
        parts = value if isinstance(value, (list, tuple)) else [value]
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        if tensors:
            self.sizes[node] = sum(tensor.numel() for tensor in tensors)

    def _compare(self, reference: tuple[torch.Tensor, ...], actual: tuple[torch.Tensor, ...]) -> None:
        if not self.outputs:
            self.outputs = [Noise() for _ in reference]
        for noise, first, second in zip(self.outputs, reference, actual, strict=True):
            noise.add(first, second)


class _Step:
    """Where both graphs stand with one batch."""

    def __init__(self, floating: Run, quantized: Run, twins: dict[fx.Node, fx.Node]) -> None:
        self.floating, self.quantized, self._twins = floating, quantized, twins
        self.behind: dict[fx.Node, Any] = {}  # a split gives several tensors
        self._place = {node: index for index, node in enumerate(floating.nodes)}
        self._next = 0

    def constant(self, node: fx.Node) -> bool:
        """Whether a node of the quantized graph depends on no image."""
        return self.quantized.is_constant(node)

    def matched(self, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """What a node reads, and what the same node of the float graph reads in its place."""
        matched: list[tuple[fx.Node, fx.Node]] = []
        for mine, theirs in zip(node.args, self._twins[node].args, strict=False):
            sides = [list(item) if isinstance(item, (list, tuple)) else [item] for item in (mine, theirs)]
            matched += [
                (first, second)
                for first, second in zip(*sides, strict=False)
                if isinstance(first, fx.Node) and isinstance(second, fx.Node)
            ]
        return matched

    def insert(self, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Computes a node that only the quantized graph has, on float values too.

        Returns:
            What it reads and gives on the float side; None for constants, and for splits, which give several tensors.
        """
        if self.constant(node):
            return None
        self.quantized.execute(node, 0)
        instead = {item: self._float_side(item) for item in node.all_input_nodes if not self.constant(item)}
        self.behind[node] = self.quantized.call(node, 0, instead=instead)
        before, after = next(iter(instead.values())), self.behind[node]
        self._release(node)
        return (before, after) if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) else None

    def advance(self, twin: fx.Node) -> None:
        """Runs the float graph up to, not including, a node."""
        place = self._place[twin]
        for node in self.floating.nodes[self._next : place]:
            self.floating.execute(node, 0)
            self.floating.release(node, 0)
        self._next = place

    def release(self, node: fx.Node, twin: fx.Node) -> None:
        """Frees what both were the last to read."""
        self.floating.release(twin, 0)
        self._next = self._place[twin] + 1
        self._release(node)

    def _release(self, node: fx.Node) -> None:
        for item in self.quantized.release(node, 0):
            self.behind.pop(item, None)

    def _float_side(self, node: fx.Node) -> Any:
        return self.behind[node] if node in self.behind else self.floating.value(self._twins[node], 0)


def balanced_weight(node: fx.Node, pair: fx.Node, weight: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Rounds a weight as if each input channel had been divided by its size, and the weight multiplied by it.

    Args:
        node: A convolution or linear.
        pair: Its weight's pair, for the integers.
        weight: The float weight.
        source: What the layer reads, for the sizes: the root mean square of each channel.
    """
    axis = source.ndim - 1 if is_call(node, LINEAR) else 1
    sizes = source.transpose(0, axis).flatten(1).square().mean(1).sqrt()
    # A channel of nothing but zeros has no size; its weights do not matter.
    sizes = sizes.clamp_min(max(1e-6 * float(sizes.max()), torch.finfo(sizes.dtype).tiny))
    if is_call(node, LINEAR):
        columns = sizes
    elif is_call(node, CONV_TRANSPOSE):
        columns = sizes.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        groups = argument(node, 6, "groups", 1)
        columns = sizes.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).reshape(len(weight), -1)
        columns = columns.reshape(*columns.shape, *[1] * (weight.ndim - 2))
    scaled = weight * columns
    outputs, qmin, qmax = pair.args[3], pair.args[4], pair.args[5]
    assert isinstance(outputs, int)
    assert isinstance(qmin, int)
    assert isinstance(qmax, int)
    others = [index for index in range(weight.ndim) if index != outputs]
    step = (scaled.abs().amax(others, keepdim=True) / qmax).clamp_min(torch.finfo(weight.dtype).tiny)
    return (scaled / step).round().clamp(qmin, qmax) * step / columns
