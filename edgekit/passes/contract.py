"""The contract of a pass, and the pipeline that runs a list of them.

A pass takes its options as one frozen dataclass when it is made, has no globals, and never changes the program that it
is given. The pipeline is an explicit list of instances. It owns logging, timing and the check that the declared
interface is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgekit.errors import InternalError
from edgekit.program import Program
from edgekit.progress import Progress

__all__ = ["Pass", "PassContext", "PassResult", "run_passes"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PassContext:
    """What the pipeline lends to a pass while it runs."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """A new program, with the pass's own line of history already on it.

    Attributes:
        program: The rewritten program.
        interface_changed: True where the pass declares that it changes inputs or outputs (folding the preprocessing
            does).
    """

    program: Program
    interface_changed: bool = False


class Pass(Protocol):
    """One rewriting of a program."""

    @property
    def name(self) -> str: ...

    def check(self, program: Program) -> None:
        """Raises a UserError if the pass cannot be applied to this program; changes nothing."""

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Applies the pass. The given program stays as it was."""


def run_passes(program: Program, passes: Sequence[Pass], context: PassContext) -> Program:
    """Runs passes in order.

    Raises:
        UserError: A pass cannot be applied to the program that reaches it.
        InternalError: A pass changed the interface without declaring it, or left no line of history.
    """
    for item in passes:
        item.check(program)
        start = time.perf_counter()
        result = item.run(program, context)
        before, after = program, result.program
        if not result.interface_changed and (before.inputs, before.outputs) != (after.inputs, after.outputs):
            raise InternalError(f"pass '{item.name}' changed the interface of '{program.name}' without declaring it")
        if len(after.history) <= len(before.history):
            raise InternalError(f"pass '{item.name}' left no record in the history of '{program.name}'")
        _LOG.info("%s: %s (%.2f s)", item.name, after.history[-1].summary, time.perf_counter() - start)
        program = after
    return program
