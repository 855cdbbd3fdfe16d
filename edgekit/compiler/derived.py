"""What is derived from a program and costs time, made once however many candidates and targets share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from edgekit.backends.base import PortableGraph
from edgekit.compiler.golden import golden_outputs
from edgekit.compiler.images import Images, program_answers
from edgekit.errors import StageError
from edgekit.evaluate import score
from edgekit.export import export_portable
from edgekit.passes import PassContext, run_passes
from edgekit.passes.half import ToHalf
from edgekit.program import Program
from edgekit.targets import Portable
from edgekit.tasks import MetricReport

__all__ = ["Derived"]

Array = np.ndarray[Any, Any]
T = TypeVar("T")


class Derived:
    """Makes graphs, reference answers and metrics of programs, and remembers them while the compilation lasts.

    Args:
        floating: The folded float program.
        original: The folded program that drops are measured against, where stages changed the network; None is
            ``floating``.
        golden: Golden inputs.
        evaluation: Labelled images; None where there are none.
        dynamic_batch: Whether graphs leave the batch open.
        context: For passes, and where progress is shown.
    """

    def __init__(
        self,
        *,
        floating: Program,
        original: Program | None = None,
        golden: Mapping[str, Array],
        evaluation: Images | None,
        dynamic_batch: bool,
        context: PassContext,
    ) -> None:
        self.floating = floating
        self._original = floating if original is None else original
        self.golden = golden
        self.evaluation = evaluation
        self._dynamic_batch = dynamic_batch
        self._context = context
        # A key holds its program by id, and the program beside the value, so that no id is used again.
        self._made: dict[tuple[object, ...], tuple[Program, Any]] = {}

    def half(self, program: Program) -> Program:
        """The program with float16 types written into what it computes in float.

        Raises:
            UserError: A weight is beyond what float16 holds.
        """
        return self._once(program, ("half",), lambda: run_passes(program, [ToHalf()], self._context))

    def check_half(self, program: Program, half: Program) -> None:
        """Runs the half program on the golden inputs.

        Raises:
            StageError: A value is beyond what float16 holds, or torch has no float16 form of an operator on this CPU.
        """
        hint = "compile for fp32 or int8 instead (--precision)"
        try:
            answers = self.answers(half)
        except RuntimeError as error:  # what torch raises for a kernel that it lacks
            raise StageError(
                f"'{program.name}': torch cannot compute it in float16 here, so no engine could be checked: {error}",
                hint=hint,
            ) from error
        for name, values in answers.items():
            if not np.isfinite(values).all() and np.isfinite(self.answers(program)[name]).all():
                raise StageError(
                    f"'{program.name}': in float16 its output '{name}' is no number on the golden inputs: a value "
                    "exceeds float16's largest, 65504",
                    hint=hint,
                )

    @property
    def reference(self) -> MetricReport | None:
        """The given network's metric in float, against which drops are measured."""
        return self.metric(self._original, label="evaluating float")

    def graph(self, program: Program, portable: Portable, precision: str) -> PortableGraph:
        """The program as a portable graph.

        Raises:
            StageError: It cannot be exported.
        """
        graph = self._once(
            program,
            ("graph", portable.opset, portable.ir_version),
            lambda: export_portable(program, portable=portable, precision=precision, dynamic_batch=self._dynamic_batch),
        )
        return replace(graph, precision=precision)

    def answers(self, program: Program) -> dict[str, Array]:
        """The program's outputs on the golden inputs."""
        return self._once(program, ("answers",), lambda: golden_outputs(program, self.golden))

    def metric(self, program: Program, *, label: str) -> MetricReport | None:
        """The program's metric on the labelled images; None where there are none.

        Raises:
            DataError: Too many images cannot be read.
        """
        images = self.evaluation
        return None if images is None else self._once(program, ("metric",), lambda: self._score(program, images, label))

    def _score(self, program: Program, images: Images, label: str) -> MetricReport:
        with self._context.progress.task(label, len(images)) as bar:
            return score(images.spec, program_answers(program, images, bar))

    def _once(self, program: Program, what: tuple[object, ...], make: Callable[[], T]) -> T:
        key = (id(program), *what)
        if key not in self._made:
            self._made[key] = (program, make())
        made: T = self._made[key][1]
        return made
