"""Sizes of all values of a graph, from one run on fake tensors with a batch that no other size can be taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from edgekit.program import Program

__all__ = ["BATCH", "Sizes", "Tree", "read_sizes"]

BATCH = 1009
"""The batch of the fake run, where the batch is dynamic: a prime, so that no product of other sizes holds it."""

Tree = tuple[int, ...] | list["Tree"] | None
"""The sizes of a tensor, a list of those for several results, or None for what is no tensor."""
Sizes = Mapping[fx.Node, Tree]


def read_sizes(program: Program) -> Sizes:
    """Returns the sizes of every node's value; those stored at export go stale with every surgery."""
    found: dict[fx.Node, Tree] = {}

    class Watcher(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            found[n] = _sizes(result)
            return result

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), mode:
        inputs = [
            torch.empty([BATCH if size is None else size for size in spec.shape], dtype=getattr(torch, spec.dtype))
            for spec in program.inputs
        ]
        Watcher(program.graph, garbage_collect_values=True).run(*inputs)
    return found


def _sizes(value: Any) -> Tree:
    if isinstance(value, torch.Tensor):
        return tuple(int(size) for size in value.shape)
    if isinstance(value, (tuple, list)):
        return [_sizes(item) for item in value]
    return None
