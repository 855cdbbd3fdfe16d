"""Program: the one trainable IR that every frontend makes and every pass takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from edgekit.runtime.tasks.base import Spec
from edgekit.tensorspec import TensorSpec

__all__ = ["Program", "Record", "Skipped"]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that a pass or stage left alone: what, where, why. Nothing is silent."""

    what: str
    where: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of a program's history.

    Attributes:
        stage: Name of the frontend or pass.
        summary: One sentence on what it did.
        changed: How many nodes or tensors it changed.
        skipped: What it left alone.
        details: Plain JSON-able numbers for the report.
    """

    stage: str
    summary: str
    changed: int = 0
    skipped: tuple[Skipped, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A model as ``torch.export``'s functional graph of ATen operators, with what it is for and what was done to it.

    Attributes:
        graph: The fx graph module. Parameters and buffers hang on it by their original dotted names. Placeholders are
            the inputs in order; the output node returns a flat tuple of tensors in the order of ``outputs``. Treat it
            as immutable: passes work on :meth:`copied` programs.
        inputs: Interface, in order. Float NCHW images until the preprocessing is folded; a dynamic batch is ``None``
            in dimension 0.
        outputs: Interface, in order.
        task: The task spec, or None for a model without one.
        name: For people and file names.
        history: What each stage did, oldest first.
    """

    graph: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: Spec | None
    name: str
    history: tuple[Record, ...] = ()

    @property
    def dynamic_batch(self) -> bool:
        """Whether any number of images may be fed at once."""
        return all(spec.shape[:1] == (None,) for spec in self.inputs)

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.graph.parameters())

    def copied(self) -> Program:
        """Returns a program whose graph and parameters are this one's, but not shared with it."""
        return replace(self, graph=copy.deepcopy(self.graph))

    def recorded(self, record: Record) -> Program:
        """Returns this program with one more line of history."""
        return replace(self, history=(*self.history, record))

    def module(self) -> fx.GraphModule:
        """Returns a copy as a plain, trainable ``nn.Module``; training it leaves the program as it is."""
        return copy.deepcopy(self.graph)

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the graph in inference mode and returns its flat outputs."""
        with torch.no_grad():
            result = self.graph(*inputs)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)
