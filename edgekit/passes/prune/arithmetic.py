"""Multiply-accumulates of what is left."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from edgekit.passes.prune.blocks import Block, running_without
from edgekit.passes.prune.flow import Flow

__all__ = ["Arithmetic"]


class Arithmetic:
    """Multiply-accumulates of one image that are left when units and blocks go."""

    def __init__(self, flow: Flow) -> None:
        self._graph = flow.program.graph.graph
        self._costs = [
            (cost.node.name, cost.factor, [flow.labels.find(axis) for axis in cost.axes]) for cost in flow.costs
        ]
        self._size = len(flow.labels)
        self.total = self.left()

    def left(self, gone: Sequence[int] = (), removed: Collection[Block] = ()) -> float:
        """Returns what is left without the units ``gone`` and the blocks ``removed``."""
        alive = np.ones(self._size, dtype=bool)
        alive[list(gone)] = False
        running = running_without(self._graph, removed) if removed else None
        return sum(
            factor * math.prod(int(alive[axis].sum()) for axis in axes)
            for name, factor, axes in self._costs
            if running is None or name in running
        )
