"""Whom to blame: noise is put down to the layer that could have prevented it, not to the one where it shows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from edgekit.passes.aten import Operators, is_call
from edgekit.passes.diagnose.noise import MEASURED, NodeNoise, Noise
from edgekit.passes.quantize.ops import QDQ

__all__ = ["blame", "maker"]

_A = torch.ops.aten
# Whatever the layers before did to their channels ends here.
_NORMALIZES: Operators = frozenset(
    {_A.layer_norm.default, _A.group_norm.default, _A.instance_norm.default, _A.rms_norm.default, _A.softmax.int}
)


def blame(
    nodes: Mapping[fx.Node, NodeNoise], pairs: Mapping[fx.Node, Noise], sizes: Mapping[fx.Node, int]
) -> dict[fx.Node, float]:
    """Returns, by compute layer, the noise-to-signal ratio that is its fault.

    It is the sum of two:

    1. **Its weight**: the noise at its output from rounding its own weight.
    2. **Its output tensor**: the noise at the outputs of what reads that tensor, from rounding it; of several readers
       the worst. It counts with the layer that makes the tensor, because that layer's channels are what does not fit
       one grid. To it belongs the part of the reader's weight noise that would not be there if the tensor's channels
       were of like size: channels 1,000 times larger than others come with weights 1,000 times smaller, which one scale
       rounds to nothing.

    A pair on an input of the network, or behind a layer norm, has no such layer: its noise is its reader's.

    Args:
        nodes: What was measured at each node.
        pairs: What was measured at each pair.
        sizes: How many values each tensor has.
    """
    weights = dict.fromkeys((node for node in nodes if is_call(node, MEASURED)), 0.0)
    tensors = dict.fromkeys(weights, 0.0)
    for node, found in nodes.items():
        for item, noise in found.inputs.items():
            imbalance = max(0.0, found.weight.ratio - found.balanced.ratio) if item is node.args[0] else 0.0
            for layer, share in _makers(item, pairs, sizes).items():
                guilty = node if layer is None else layer
                if guilty in tensors:
                    tensors[guilty] = max(tensors[guilty], share * (noise.ratio + imbalance))
        if node in weights:
            passed_on = node.args[0] in found.inputs
            weights[node] = min(found.weight.ratio, found.balanced.ratio) if passed_on else found.weight.ratio
    return {node: weights[node] + tensors[node] for node in weights}


def maker(node: fx.Node, sizes: Mapping[fx.Node, int]) -> fx.Node | None:
    """Returns the compute layer whose channels a tensor has; None where there is none.

    Of several that are added up it is the last, and of a product with a gate what is gated. The tensor behind a layer
    norm has none, and an input of the network has none.
    """
    order = {item: index for index, item in enumerate(node.graph.nodes)}
    found: set[fx.Node] = set()
    waiting, seen = [node], {node}
    while waiting:
        item = waiting.pop()
        if is_call(item, MEASURED):
            found.add(item)
            continue
        if is_call(item, _NORMALIZES):
            continue
        sources = [source for source in item.all_input_nodes if source in sizes]
        if is_call(item, {_A.mul.Tensor}):
            largest = max((sizes[source] for source in sources), default=0)
            sources = [source for source in sources if sizes[source] == largest]
        for source in sources:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return max(found, key=order.__getitem__, default=None)


def _makers(item: fx.Node, pairs: Mapping[fx.Node, Noise], sizes: Mapping[fx.Node, int]) -> dict[fx.Node | None, float]:
    """Returns who makes what a layer reads, with each one's share in the squared error of it."""
    behind: list[fx.Node] = []
    waiting, seen = [item], {item}
    while waiting:
        node = waiting.pop()
        if is_call(node, {QDQ}):
            if node in pairs:
                behind.append(node)
            continue
        for source in node.all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    total = sum(pairs[node].error for node in behind)
    shares: dict[fx.Node | None, float] = {}
    for node in behind:
        before = node.args[0]
        assert isinstance(before, fx.Node)
        layer = maker(before, sizes)
        shares[layer] = shares.get(layer, 0.0) + (pairs[node].error / total if total > 0 else 1 / len(behind))
    return shares
