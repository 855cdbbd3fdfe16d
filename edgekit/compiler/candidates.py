"""Candidates: the precisions in which a target could run the model, each made into a graph and an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.backends.base import Backend, Engine, PortableGraph
from edgekit.compiler.images import golden_outputs
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.records import CandidateReport
from edgekit.errors import ConfigError, EdgekitError, StageError
from edgekit.export import export_portable
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.half import ToHalf
from edgekit.program import Program
from edgekit.runtime.golden import rel_l2
from edgekit.targets import Target

__all__ = ["Candidate", "Failure", "build_candidate", "precisions_for"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A precision made real for one target.

    Attributes:
        program: What the engine must answer like.
        engine: None where the device builds it.
        options: For building or opening, in the backend's words.
        golden: Reference outputs on the golden inputs.
        golden_limit: Largest allowed relative L2 error of any output.
        report: What is known so far.
    """

    precision: str
    program: Program
    graph: PortableGraph
    engine: Engine | None
    options: Mapping[str, Any]
    golden: Mapping[str, Array]
    golden_limit: float
    report: CandidateReport


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A candidate that could not be made."""

    report: CandidateReport
    error: EdgekitError


def precisions_for(target: Target, backend: Backend, options: CompileOptions, *, has_data: bool) -> tuple[str, ...]:
    """Returns the precisions to try, in the target's order.

    Raises:
        ConfigError: The forced precision is not one of the target's, or int8 is forced without data.
    """
    if options.precision != "auto":
        if options.precision not in target.precisions:
            raise ConfigError(
                f"target '{target.name}' does not run {options.precision}",
                hint=f"its precisions: {', '.join(target.precisions)}",
            )
        if options.precision == "int8" and not has_data:
            raise ConfigError("precision int8 needs calibration images", hint="give a folder of images (--data)")
        return (options.precision,)
    here = backend.precisions_here(target)
    return tuple(item for item in target.precisions if item in here and (item != "int8" or has_data))


def build_candidate(
    precision: str,
    *,
    target: Target,
    backend: Backend,
    floating: Program,
    quantized: Program | None,
    golden: Mapping[str, Array],
    dynamic_batch: bool,
    context: PassContext,
) -> Candidate | Failure:
    """Exports and builds one candidate; a refusal comes back as a :class:`Failure`, to be reported and not lost.

    Args:
        precision: One of the target's.
        target: The target.
        backend: Its backend.
        floating: The folded float program.
        quantized: The quantized program of the target's scheme, for int8.
        golden: Golden inputs.
        dynamic_batch: Whether the engine takes any batch.
        context: For passes.
    """
    try:
        program = _program(precision, target, floating, quantized, context)
        graph = export_portable(program, portable=target.portable, precision=precision, dynamic_batch=dynamic_batch)
        unsupported = [verdict for verdict in backend.supports(graph, target) if not verdict.supported]
        if unsupported:
            shown = "; ".join(f"{item.operator} '{item.node}': {item.reason}" for item in unsupported[:3])
            raise StageError(
                f"target '{target.name}' cannot run {len(unsupported)} nodes of the {precision} graph: {shown}"
            )
        engine = backend.build(graph, target) if target.build == "here" else None
        rehearsal = backend.rehearse(graph, target) if target.build == "device" else None
        if rehearsal is not None and not rehearsal.built:
            raise StageError(f"rehearsal with {rehearsal.builder} refused the {precision} graph: {rehearsal.reason}")
        options = engine.options if engine is not None else backend.options(target, precision)
    except EdgekitError as error:
        report = CandidateReport(precision=precision, status="failed", reason=error.message)
        return Failure(report=report, error=error)
    reference = golden_outputs(program, golden)
    report = CandidateReport(
        precision=precision,
        status="passed",
        reason="",
        graph_bytes=len(graph.data),
        engine_bytes=sum(map(len, engine.files.values())) if engine is not None else 0,
        rehearsal=None if rehearsal is None else vars(rehearsal),
    )
    return Candidate(
        precision=precision,
        program=program,
        graph=graph,
        engine=engine,
        options=options,
        golden=reference,
        golden_limit=_golden_limit(target, precision, reference, golden_outputs(floating, golden)),
        report=report,
    )


def _program(
    precision: str, target: Target, floating: Program, quantized: Program | None, context: PassContext
) -> Program:
    if precision == "int8":
        if quantized is None:
            raise StageError(f"target '{target.name}': no quantized program for int8")
        return quantized
    if precision == "fp16" and target.portable.half == "graph":
        passes: Sequence[Pass] = (ToHalf(),)
        return run_passes(floating, passes, context)
    return floating


def _golden_limit(
    target: Target, precision: str, reference: Mapping[str, Array], floating: Mapping[str, Array]
) -> float:
    """The target's bound, or for int8 the quantization's own noise where that is larger.

    Two right implementations of one int8 graph round some values to neighbouring integers, and a deep network carries
    such flips on. What they differ by stays below what quantization itself does to the outputs; a wrong kernel goes far
    beyond.
    """
    bound = target.golden_rel_l2[precision]
    if precision != "int8":
        return bound
    return max(bound, *(rel_l2(floating[name], reference[name]) for name in reference))
