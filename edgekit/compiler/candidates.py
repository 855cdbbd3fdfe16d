"""Candidates: the precisions in which a target could run the model, each made into a graph and an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.backends.base import Backend, Engine, PortableGraph
from edgekit.bundle import compressed
from edgekit.compiler.derived import Derived
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.records import CandidateReport
from edgekit.config import to_dict
from edgekit.errors import ConfigError, EdgekitError, InternalError, StageError, UserError
from edgekit.program import Program
from edgekit.runtime.golden import rel_l2
from edgekit.targets import Precision, Target

__all__ = ["MIXED", "Candidate", "Failure", "build_candidate", "is_integer", "precisions_for"]

MIXED = "mixed"
"""int8 with the costliest layers in float: a candidate of its own, by the target's int8 rules, bounds and options."""

Array = np.ndarray[Any, Any]
_SHOWN = 3


def is_integer(precision: str) -> bool:
    """Whether a candidate of this precision has int8 layers."""
    return precision in ("int8", MIXED)


def in_target(precision: str) -> str:
    """Returns the name under which the target's tables speak of a candidate."""
    return "int8" if precision == MIXED else precision


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
        compressed: Role to zlib stream, of those files of the engine that the bundle stores compressed.
    """

    precision: str
    program: Program
    graph: PortableGraph
    engine: Engine | None
    options: Mapping[str, Any]
    golden: Mapping[str, Array]
    golden_limit: float
    report: CandidateReport
    compressed: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A candidate that could not be made."""

    report: CandidateReport
    error: EdgekitError


def precisions_for(target: Target, backend: Backend, options: CompileOptions) -> tuple[Precision, ...]:
    """Returns the precisions to try, in the target's order.

    Raises:
        ConfigError: The forced precision is not one of the target's, int8 is forced without data, or the target has
            nothing but int8 and there is no data.
    """
    has_data = options.data is not None
    if options.precision == MIXED:
        return _for_mixed(target, has_data)
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
    precisions = tuple(item for item in target.precisions if item in here and (item != "int8" or has_data))
    if not precisions:
        raise ConfigError(
            f"target '{target.name}': of its precisions ({', '.join(target.precisions)}) none can be made here"
            + ("" if has_data else " without calibration images"),
            hint="give a folder of images (--data), or another target",
        )
    return precisions


def _for_mixed(target: Target, has_data: bool) -> tuple[Precision, ...]:
    """Mixed starts from int8, and that alone."""
    if "int8" not in target.precisions:
        raise ConfigError(f"target '{target.name}' does not run int8, so nothing can be mixed")
    if not has_data:
        raise ConfigError("precision mixed needs calibration images", hint="give a folder of images (--data)")
    return ("int8",)


def build_candidate(
    precision: str, *, target: Target, backend: Backend, quantized: Program | None, derived: Derived
) -> Candidate | Failure:
    """Exports and builds one candidate; a refusal comes back as a :class:`Failure`, to be reported and not lost.

    Args:
        precision: One of the target's, or ``mixed``.
        target: The target.
        backend: Its backend.
        quantized: The quantized program, for int8 and mixed.
        derived: Where the float program, graphs and reference answers come from.
    """
    try:
        program, findings = _program(precision, target, quantized, derived)
        graph = derived.graph(program, target.portable, in_target(precision))
        unsupported = [verdict for verdict in backend.supports(graph, target) if not verdict.supported]
        if unsupported:
            shown = [f"{graph.described(item.node, item.operator)}: {item.reason}" for item in unsupported[:_SHOWN]]
            count = f"{len(unsupported)} nodes" if len(unsupported) > 1 else "a node"
            raise StageError(
                f"target '{target.name}' cannot run {count} of the {precision} graph: {'; '.join(shown)}",
                hint="write it with other operators in the model, leave this part of the model to the application, "
                "or compile for another target",
            )
        if precision == "fp16" and program is not derived.floating:
            derived.check_half(derived.floating, program)
        engine = backend.build(graph, target) if target.build != "device" else None
        rehearsal = backend.rehearse(graph, target) if target.build == "device" else None
        if rehearsal is not None and not rehearsal.built:
            raise StageError(
                f"rehearsal with {rehearsal.builder} refused the {precision} graph: {rehearsal.reason}",
                hint="the device's builder would refuse it too: write this part of the model with other operators",
            )
        options = engine.options if engine is not None else backend.options(target, in_target(precision))
    except InternalError:
        raise
    except EdgekitError as error:
        report = CandidateReport(precision=precision, status="failed", reason=error.message)
        return Failure(report=report, error=error)
    smaller = {} if engine is None else _compressed(engine)
    reference, plain = derived.answers(program), derived.answers(derived.floating)
    distance = max(rel_l2(plain[name], reference[name]) for name in reference)
    report = CandidateReport(
        precision=precision,
        status="passed",
        reason="",
        graph_bytes=len(graph.data),
        engine_bytes=_size({} if engine is None else engine.files),
        stored_bytes=_size({} if engine is None else {**engine.files, **smaller}),
        float_distance=distance if math.isfinite(distance) else None,
        findings=(*findings, *(() if engine is None else engine.findings)),
        rehearsal=None if rehearsal is None else to_dict(rehearsal),
    )
    return Candidate(
        precision=precision,
        program=program,
        graph=graph,
        engine=engine,
        compressed=smaller,
        options=options,
        golden=reference,
        golden_limit=_golden_limit(target, precision, distance),
        report=report,
    )


def _compressed(engine: Engine) -> dict[str, bytes]:
    """Returns the files that shrink, of those that the backend would have compressed."""
    streams = {role: compressed(engine.files[role]) for role in engine.compress}
    return {role: stream for role, stream in streams.items() if stream is not None}


def _size(files: Mapping[str, bytes]) -> int:
    return sum(map(len, files.values()))


def _program(
    precision: str, target: Target, quantized: Program | None, derived: Derived
) -> tuple[Program, tuple[str, ...]]:
    """The program that a candidate is, and what is otherwise than the target asks."""
    if is_integer(precision) and quantized is None:
        raise InternalError(f"target '{target.name}': no quantized program for {precision}")
    program = quantized if is_integer(precision) and quantized is not None else derived.floating
    if target.portable.half != "graph" or "fp16" not in target.precisions:
        return program, ()
    if precision == "fp16":
        return derived.half(program), ()
    if not is_integer(precision):
        return program, ()
    try:
        half = derived.half(program)
        derived.check_half(program, half)
    except (UserError, StageError) as error:
        return program, (f"its float layers are fp32, not fp16: {error.message}",)
    return half, ()


def _golden_limit(target: Target, precision: str, float_distance: float) -> float:
    """The target's bound, or for int8 one and a half times the quantization's own noise where that is larger.

    Engines may round less often than the graph says (a residual add fused into its convolution skips a rounding), and a
    deep network carries every such flip on. Two results that each err by the noise, independently, differ by its square
    root of two. A wrong kernel goes far beyond. Outputs that are not finite get no such allowance.
    """
    bound = target.golden_rel_l2[in_target(precision)]
    return max(bound, 1.5 * float_distance) if is_integer(precision) and math.isfinite(float_distance) else bound
