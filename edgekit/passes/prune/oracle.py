"""The check that every pruning passes: a pruned network answers as the whole one with the same channels at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgekit.errors import StageError
from edgekit.passes.prune.surgery import zeroed
from edgekit.passes.prune.units import Unit
from edgekit.program import Program

__all__ = ["TOLERANCE", "check_exact", "difference"]

TOLERANCE = 1e-8
"""Largest accepted difference, of the largest answer, in float64: exact surgery stays below 1e-12, a lost constant or
a channel in the wrong place is larger by many orders of magnitude."""
_BATCH = 2


def check_exact(program: Program, pruned: Program, units: Sequence[Unit], *, seed: int = 0) -> float:
    """Compares a pruned program with the one that it was made of, the units' producers at zero, in float64.

    Args:
        program: Before.
        pruned: After.
        units: What was removed.
        seed: Of the random input.

    Returns:
        The relative difference.

    Raises:
        StageError: They answer differently: the pruned program is wrong and must not be used.
    """
    found = difference(zeroed(program, units), pruned, seed=seed)
    if not found <= TOLERANCE:
        raise StageError(
            f"pruning changed what '{program.name}' computes: the pruned network differs from the one with the same "
            f"channels at zero by {found:.1e} of its largest answer, expected at most {TOLERANCE:.0e}",
            hint="leave out the layers whose operators are unusual (--prune-exclude), and report this network as a bug",
        )
    return found


def difference(program: Program, other: Program, *, seed: int) -> float:
    """Returns the largest difference of two programs' answers to random images, relative to the largest answer."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn([_BATCH if size is None else size for size in spec.shape], generator=generator, dtype=torch.float64)
        for spec in program.inputs
    ]
    mine, its = _wide(program).run(*inputs), _wide(other).run(*inputs)
    worst = 0.0
    for one, another in zip(mine, its, strict=True):
        if one.shape != another.shape:
            return float("inf")
        scale = max(float(one.abs().max()), 1e-30)
        gap = float((one - another).abs().max()) / scale
        worst = max(worst, gap if gap == gap else float("inf"))
    return worst


def _wide(program: Program) -> Program:
    """A copy in float64, with every cast to float32 that the graph holds."""
    copied = program.copied()
    copied.graph.double()
    for node in copied.graph.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, _doubled)
        node.kwargs = fx.node.map_aggregate(node.kwargs, _doubled)
    copied.graph.recompile()
    return copied


def _doubled(item: Any) -> Any:
    return torch.float64 if item is torch.float32 else item
