"""Networks that half precision hurts in one place each, and folded programs made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.program import Program
from tests.networks import CONTEXT, LABELS, spec

__all__ = ["HURT", "folded_module", "hurt"]


class LargeNorm(nn.Module):
    """A layer norm of values around 1e4: float16 holds them, not their squares."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16), nn.Linear(16, len(LABELS))
        with torch.no_grad():
            self.patch.weight.mul_(1e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class LargeLogits(nn.Module):
    """Attention whose logits go beyond float16."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.score, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, len(LABELS))
        with torch.no_grad():
            self.patch.weight.mul_(1e2)
            self.score.weight.mul_(3e3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head((x * torch.softmax(self.score(x), -1)).mean(1))


class SumPool(nn.Module):
    """A global sum of large values, and a layer that makes little of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, len(LABELS))
        with torch.no_grad():
            self.stem.weight.mul_(1e3)
            self.head.weight.mul_(1e-2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(x)).sum((2, 3)))


class GroupNormed(nn.Module):
    """A group norm of one group, which the exporter spells out: the squares are tensors of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.Linear(8, len(LABELS))
        with torch.no_grad():
            self.stem.weight.mul_(2e3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


class Cancelling(nn.Module):
    """A difference of two nearly equal large values: rounding them loses what is left of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        return self.head(((y + 3e3).reshape(y.shape) - 3e3).mean((2, 3)))


HURT: Mapping[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "large-norm": (LargeNorm, ("layer_norm",)),
    "large-logits": (LargeLogits, ("score", "softmax")),
    "sum-pool": (SumPool, ("sum", "head")),
    "group-norm": (GroupNormed, ("group_norm",)),
    "cancelling": (Cancelling, ("add", "reshape", "sub")),
}
"""Name to the network and the operators or layers that must stay float32, no more and no fewer."""


def folded_module(module: nn.Module) -> Program:
    program = load_program(module.eval(), task=spec())
    return run_passes(program, [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)


def hurt(name: str) -> Program:
    torch.manual_seed(0)
    return folded_module(HURT[name][0]())
