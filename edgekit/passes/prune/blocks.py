"""Residual blocks that can leave whole: a sum that gives back one of its inputs unchanged when the other is gone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, clean, layer_name
from edgekit.passes.prune.flow import Flow
from edgekit.program import Program
from edgekit.progress import ProgressTask

__all__ = ["Block", "choose_blocks", "find_blocks", "macs_without", "without_blocks"]

_ADD = torch.ops.aten.add.Tensor
Distance = Callable[[Program], float]
"""How far a program's answers are from those of the whole network; 0 is the same."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A residual block.

    Attributes:
        total: Name of the node of the sum.
        shortcut: Name of the node that the sum gives back when the block is gone.
        layers: The layers that leave with it.
    """

    total: str
    shortcut: str
    layers: tuple[str, ...]


def find_blocks(flow: Flow) -> tuple[Block, ...]:
    """Lists the sums of two equally large tensors of which one is computed from the other by layers.

    A shortcut that is a layer itself (one that changes the size) is not computed from: such a block stays.
    """
    blocks = []
    for node in flow.program.graph.graph.nodes:
        if node.target is not _ADD or len(node.args) != 2 or dict(node.kwargs).get("alpha", 1) != 1:
            continue
        left, right = node.args
        if not (flow.is_tensor(left) and flow.is_tensor(right)) or flow.shape(left) != flow.shape(right):
            continue
        for shortcut, branch in ((left, right), (right, left)):
            between = _between(shortcut, branch)
            layers = tuple(layer_name(item) for item in between if item.target in COMPUTE)
            if layers:
                blocks.append(Block(total=node.name, shortcut=shortcut.name, layers=layers))
                break
    return tuple(blocks)


def macs_without(flow: Flow, removed: Collection[Block]) -> float:
    """Returns the multiply-accumulates of one image that are left when blocks leave."""
    alive = _alive(flow.program.graph.graph, {block.total: block.shortcut for block in removed})
    total = 0.0
    for cost in flow.costs:
        if cost.node.name in alive:
            product = cost.factor
            for axis in cost.axes:
                product *= len(axis)
            total += product
    return total


def without_blocks(program: Program, removed: Collection[Block]) -> Program:
    """Returns a copy in which each block's sum is its shortcut."""
    copied = program.copied()
    nodes = {node.name: node for node in copied.graph.graph.nodes}
    shortcuts = {block.total: block.shortcut for block in removed}
    for total, shortcut in shortcuts.items():
        while shortcut in shortcuts:  # it is the sum of a block that leaves too
            shortcut = shortcuts[shortcut]
        nodes[total].replace_all_uses_with(nodes[shortcut])
    clean(copied.graph)
    return replace(copied, inputs=program.inputs, outputs=program.outputs)


def choose_blocks(
    flow: Flow, blocks: Sequence[Block], distance: Distance, *, keep: float, bar: ProgressTask
) -> tuple[Block, ...]:
    """Removes, one after the other, the block whose removal costs least per multiply-accumulate saved.

    The cost of each is measured anew after every removal, on the program without those that have left: two blocks may
    each be dispensable and not both.

    Args:
        flow: The labels of the program.
        blocks: What can leave.
        distance: Of a program from the whole one, on images.
        keep: Share of the multiply-accumulates to keep.
        bar: Advanced once per program that was looked at.

    Returns:
        The blocks to remove; all of them if that is not enough.
    """
    total = macs_without(flow, ())
    chosen: list[Block] = []
    left = total
    while left > keep * total and len(chosen) < len(blocks):
        best: tuple[float, float, Block] | None = None
        for block in blocks:
            if block in chosen:
                continue
            after = macs_without(flow, [*chosen, block])
            if after >= left:
                continue
            price = distance(without_blocks(flow.program, [*chosen, block])) / (left - after)
            bar.advance()
            if best is None or price < best[0]:
                best = (price, after, block)
        if best is None:
            break
        left = best[1]
        chosen.append(best[2])
    return tuple(chosen)


def _between(source: fx.Node, end: fx.Node) -> list[fx.Node]:
    """Returns the nodes on paths from ``source`` to ``end``, ``end`` included; empty if there is no path."""
    order: list[fx.Node] = []
    reached = {source}
    for node in source.graph.nodes:
        if node.op == "call_function" and any(item in reached for item in node.all_input_nodes):
            reached.add(node)
            order.append(node)
    if end not in reached:
        return []
    needed = {end}
    for node in reversed(order):
        if node in needed:
            needed.update(item for item in node.all_input_nodes if item in reached and item is not source)
    return [node for node in order if node in needed]


def _alive(graph: fx.Graph, replaced: dict[str, str]) -> set[str]:
    """Returns the names of the nodes that an output depends on, when some nodes stand for another one."""
    nodes = {node.name: node for node in graph.nodes}
    waiting = [node.name for node in graph.nodes if node.op == "output"]
    alive: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in alive:
            continue
        alive.add(name)
        shortcut = replaced.get(name)
        waiting += [shortcut] if shortcut is not None else [item.name for item in nodes[name].all_input_nodes]
    return alive
