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

__all__ = ["Block", "BlockPrices", "Distance", "find_blocks", "running_without", "without_blocks"]

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


class BlockPrices:
    """What the removal of each block costs, measured when it is asked for.

    A block's cost is how much further the answers move when it leaves too. It is measured again, on the program
    without those that have left, before the block is given as the cheapest: two blocks may each be dispensable and not
    both. A cost that was measured earlier only decides which block is looked at next.

    Args:
        program: With all blocks.
        blocks: What can leave.
        distance: Of a program from the whole one, on images.
        bar: Advanced once per program that was looked at.
    """

    def __init__(self, program: Program, blocks: Sequence[Block], distance: Distance, bar: ProgressTask) -> None:
        self._program, self._distance, self._bar = program, distance, bar
        self._left = list(blocks)
        self._costs: dict[str, float] = {}
        self._measured: dict[str, int] = {}
        self._moved = 0.0
        self.removed: tuple[Block, ...] = ()

    def cheapest(self, saved: Callable[[Block], float]) -> tuple[float, Block] | None:
        """Returns the lowest cost per unit of what is saved, and its block; None where no block saves anything."""
        gains = {block.total: saved(block) for block in self._left}
        worth = [block for block in self._left if gains[block.total] > 0]
        for block in worth:
            if block.total not in self._costs:
                self._measure(block)
        while worth:
            block = min(worth, key=lambda item: self._costs[item.total] / gains[item.total])
            if self._measured[block.total] == len(self.removed):
                return self._costs[block.total] / gains[block.total], block
            self._measure(block)
        return None

    def remove(self, block: Block) -> None:
        """Notes that a block leaves."""
        self._moved += self._costs[block.total]
        self._left.remove(block)
        self.removed = (*self.removed, block)

    def _measure(self, block: Block) -> None:
        distance = self._distance(without_blocks(self._program, (*self.removed, block)))
        self._costs[block.total] = distance - self._moved
        self._measured[block.total] = len(self.removed)
        self._bar.advance()


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


def running_without(graph: fx.Graph, removed: Collection[Block]) -> set[str]:
    """Returns the names of the nodes that an output depends on when blocks leave."""
    replaced = {block.total: block.shortcut for block in removed}
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
