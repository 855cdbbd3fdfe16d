"""Removes chosen classes of labels from a graph: slices of parameters, and every size that was written down."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from edgekit.errors import InternalError
from edgekit.passes.aten import clean, named_tensor, read_tensor, share_parameter, store_buffer, store_parameter
from edgekit.passes.prune.flow import Flow, named, set_named, trace
from edgekit.passes.prune.labels import Axis, Value
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.units import Unit
from edgekit.program import Program

__all__ = ["Cut", "cut_out", "zeroed"]


class Cut:
    """What is left of a flow's labels; families ask it when they repair a node.

    Args:
        flow: The labels of a graph, which is changed in place.
        gone: Representatives of the classes that leave.
    """

    def __init__(self, flow: Flow, gone: Collection[int]) -> None:
        self.flow = flow
        self._gone = np.array(sorted(gone), dtype=np.int64)

    def alive(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Returns which labels stay."""
        return ~np.isin(self.flow.labels.find(labels), self._gone)

    def left(self, labels: npt.NDArray[Any]) -> int:
        """Returns how many labels stay.

        Raises:
            InternalError: None, where there were some: a dimension must not vanish.
        """
        count = int(self.alive(labels).sum())
        if count == 0 and len(labels):
            raise InternalError("pruning would leave an empty dimension")
        return count

    def shrinks(self, axis: Axis | None) -> bool:
        """Whether anything leaves a dimension."""
        return axis is not None and not bool(self.alive(axis.labels).all())

    def count(self, axis: Axis | None) -> tuple[int, int]:
        """Returns a dimension's size before and after."""
        return (1, 1) if axis is None else (len(axis.labels), self.left(axis.labels))

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """Returns a buffer of the graph."""
        return read_tensor(self.flow.program.graph, node)

    def replace_buffer(self, node: fx.Node, value: torch.Tensor) -> None:
        """Hangs another tensor in a buffer's place."""
        store_buffer(self.flow.program.graph, str(node.target), value)

    def resize(self, node: fx.Node, name: str, *, first: int = 0) -> None:
        """Writes the sizes that are left into an argument; those that are computed or -1 stay.

        Args:
            node: The call.
            name: The argument that lists sizes.
            first: The dimension of the result that the list begins with.
        """
        sizes = list(named(node)[name])
        for place, axis in enumerate(self.flow.value(node)[first : first + len(sizes)]):
            if axis is not None and isinstance(sizes[place], int) and sizes[place] != -1:
                sizes[place] = self.left(axis.labels)
        set_named(node, name, sizes)

    def run(self) -> None:
        """Repairs every node whose arguments hold sizes, then cuts the parameters."""
        graph = self.flow.program.graph
        for node in list(graph.graph.nodes):
            family = TABLE.get(node.target) if node.op == "call_function" else None
            # A node that no tensor comes out of, or that had no rule, holds nothing to repair.
            if family is not None and family.repair is not None and self.flow.values.get(node) is not None:
                family.repair(self, node)
        shared: dict[str, nn.Parameter] = {}
        for target, name in self.flow.names.items():
            self._slice(target, name, self.flow.parameters[name], shared)
        clean(graph)

    def _slice(self, target: str, name: str, value: Value, shared: dict[str, nn.Parameter]) -> None:
        graph = self.flow.program.graph
        if name in shared:
            share_parameter(graph, target, shared[name])
            return
        tensor = named_tensor(graph, target)
        new = tensor
        for dim, axis in enumerate(value):
            if axis is not None and self.shrinks(axis):
                self.left(axis.labels)
                new = new.detach().index_select(dim, torch.from_numpy(np.nonzero(self.alive(axis.labels))[0]))
        if new is tensor:
            return
        if isinstance(tensor, nn.Parameter):
            shared[name] = store_parameter(graph, target, new)
        else:
            store_buffer(graph, target, new)


def cut_out(program: Program, gone: Collection[int]) -> Program:
    """Returns a program without some classes of labels; the given one stays as it was.

    Args:
        program: As it was traced.
        gone: Representatives, from :func:`edgekit.passes.prune.flow.trace` of the same program: labels are given in
            the order of the graph, so they are the same each time.
    """
    flow = trace(program.copied(), TABLE)
    Cut(flow, gone).run()
    return replace(flow.program, inputs=program.inputs, outputs=program.outputs)


def zeroed(program: Program, units: Iterable[Unit]) -> Program:
    """Returns a copy in which the slices that make the units are zero: what a pruned program must answer like."""
    copied = program.copied()
    with torch.no_grad():
        for part in (part for unit in units for part in unit.parts if part.made):
            named_tensor(copied.graph, part.name).index_fill_(part.dim, torch.from_numpy(part.index), 0)
    return copied
