"""What is derived from a program and costs time, made once however many candidates and targets share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from edgekit.backends.base import PortableGraph
from edgekit.compiler.golden import golden_outputs
from edgekit.compiler.halving import Halved, halve
from edgekit.compiler.images import Images, program_answers
from edgekit.evaluate import score
from edgekit.export import export_portable
from edgekit.passes import PassContext
from edgekit.passes.samples import Batch
from edgekit.program import Program
from edgekit.targets import Portable
from edgekit.tasks import MetricReport

__all__ = ["Derived"]

Array = np.ndarray[Any, Any]
T = TypeVar("T")
_NOTHING: Mapping[str, str] = MappingProxyType({})
# Calibration images on which half precision is measured: each costs two forward passes.
_MEASURED = 4


class Derived:
    """Makes graphs, reference answers and metrics of programs, and remembers them while the compilation lasts.

    Args:
        floating: The folded float program.
        reference: The metric that drops are measured against, where stages changed the network; None is the metric
            of ``floating``.
        golden: Golden inputs.
        evaluation: Labelled images; None where there are none.
        dynamic_batch: Whether graphs leave the batch open.
        context: For passes, and where progress is shown.
        calibration: Images on which half precision is measured, beside the golden inputs; None where there are none.
    """

    def __init__(
        self,
        *,
        floating: Program,
        reference: MetricReport | None = None,
        golden: Mapping[str, Array],
        evaluation: Images | None,
        dynamic_batch: bool,
        context: PassContext,
        calibration: Images | None = None,
    ) -> None:
        self.floating = floating
        self._reference = reference
        self.golden = golden
        self.evaluation = evaluation
        self._dynamic_batch = dynamic_batch
        self._context = context
        self._calibration = calibration
        # A key holds its program by id, and the program beside the value, so that no id is used again.
        self._made: dict[tuple[object, ...], tuple[Program, Any]] = {}

    def half(
        self, program: Program, *, limit: float, node_limit: float, refused: Mapping[str, str] = _NOTHING
    ) -> Halved:
        """The program with float16 types written into what it computes in float, where that does not hurt.

        Args:
            program: The float program, or a quantized one.
            limit: Largest relative L2 distance of its outputs from those of ``program``.
            node_limit: Largest relative L2 error of one node's result.
            refused: Names of nodes that stay float32 in any case, with the reason.

        Raises:
            UserError: A weight is beyond what float16 holds.
            StageError: An output is no number in float16 whatever is kept, or nothing would be float16.
        """
        what = ("half", limit, node_limit, *refused)
        halved = self._once(program, what, lambda: self._halve(program, limit, node_limit, refused))
        self._once(halved.program, ("answers",), lambda: dict(halved.answers))
        return halved

    def _halve(self, program: Program, limit: float, node_limit: float, refused: Mapping[str, str]) -> Halved:
        images: Iterator[Batch] = iter(())
        if self._calibration is not None:
            images = islice(self._calibration.batches(1), _MEASURED)
        return halve(
            program,
            limit=limit,
            node_limit=node_limit,
            golden=self.golden,
            answers=self.answers(program),
            images=images,
            context=self._context,
            refused=refused,
        )

    @property
    def reference(self) -> MetricReport | None:
        """The given network's metric in float, against which drops are measured."""
        return self.metric(self.floating, label="evaluating float") if self._reference is None else self._reference

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
