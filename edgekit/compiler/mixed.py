"""Mixed precision by measurement: the costliest layers go back to float until the accuracy is good enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit.bench.interleave import timed
from edgekit.bench.statistics import median_ratio_interval
from edgekit.compiler.candidates import MIXED, Candidate, Failure, build_candidate
from edgekit.compiler.derived import Derived
from edgekit.compiler.gates import accuracy_gate, call_of, golden_gate
from edgekit.compiler.images import Images
from edgekit.compiler.inputs import Job
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.placement import Placement
from edgekit.compiler.quantization import Quantized, finished
from edgekit.compiler.records import CandidateReport, LayerCost, MixedStep
from edgekit.compiler.sensitivity import rank_layers
from edgekit.passes import PassContext, run_passes
from edgekit.passes.quantize.returned import ReturnToFloat
from edgekit.program import Program
from edgekit.runtime.session import Session

__all__ = ["Mixed", "mix"]


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """The outcome: the last step's candidate, with the way there in its report.

    Attributes:
        candidate: None where the last step could not be built.
        report: The candidate's report, or that of the failure.
        session: The candidate's engine, where it is open here.
    """

    candidate: Candidate | None
    report: CandidateReport
    session: Session | None


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One step: its outcome, its engine where it is open here, and its layers."""

    outcome: Candidate | Failure
    session: Session | None
    layers: tuple[str, ...]


def mix(
    stack: ExitStack,
    job: Job,
    *,
    quantized: Quantized,
    int8: Session | None,
    images: Images,
    derived: Derived,
    options: CompileOptions,
    placement: Placement,
    context: PassContext,
) -> Mixed:
    """Returns layers to float, the costliest first, until the drop of the metric is within ``--max-drop``.

    At most half of the layers go back: beyond that, the float engine is the simpler answer.

    Args:
        stack: Keeps the engines open.
        job: The target and its backend.
        quantized: The int8 program that dropped too far.
        int8: Its engine, for the times; None where it is not open here.
        images: Calibration images, on which layers are ranked.
        derived: Holds the images of the accuracy gate, the golden data and the float program.
        options: The user's wishes.
        placement: What this machine can say about the target.
        context: Where progress is shown.
    """
    ranking = rank_layers(quantized, images, context)
    attempts: list[_Attempt] = []
    for count in _counts(len(ranking)):
        returned = ranking[:count]
        program = _without(quantized, returned, context)
        outcome = build_candidate(MIXED, target=job.target, backend=job.backend, quantized=program, derived=derived)
        session: Session | None = None
        if isinstance(outcome, Candidate):
            outcome, session = _gated(stack, outcome, job, derived, options, placement, context)
        attempts.append(_Attempt(outcome=outcome, session=session, layers=tuple(item.layer for item in returned)))
        if outcome.report.status == "passed":
            break
    steps = _steps(attempts, int8, derived, options, timing=placement.timed and options.timing, context=context)
    last = attempts[-1]
    report = replace(last.outcome.report, ranking=ranking, steps=steps)
    if isinstance(last.outcome, Failure):
        return Mixed(candidate=None, report=report, session=None)
    return Mixed(candidate=replace(last.outcome, report=report), report=report, session=last.session)


def _counts(layers: int) -> Iterator[int]:
    """How many layers are float in each step: one more at first, then ever larger steps, up to half of all."""
    count, most = 1, max(1, layers // 2)
    while count < most:
        yield count
        count += max(1, count // 3)
    yield most


def _without(quantized: Quantized, returned: Sequence[LayerCost], context: PassContext) -> Program:
    reasons = {
        item.node: f"returned to float, as number {place + 1} of those that cost most: {_cost(item)}"
        for place, item in enumerate(returned)
    }
    step = ReturnToFloat(layers=reasons, floating=quantized.floating)
    return finished(run_passes(quantized.draft, [step], context), context)


def _cost(item: LayerCost) -> str:
    drop = "" if item.drop is None else f"{item.drop.estimate:.2f} points [{item.drop.low:.2f}, {item.drop.high:.2f}], "
    noise = "no noise" if item.sqnr_db is None else f"{item.sqnr_db:.1f} dB"
    return f"alone in int8 it leaves {drop}{noise} at the outputs"


def _gated(
    stack: ExitStack,
    candidate: Candidate,
    job: Job,
    derived: Derived,
    options: CompileOptions,
    placement: Placement,
    context: PassContext,
) -> tuple[Candidate, Session | None]:
    session: Session | None = None
    if candidate.engine is not None and placement.opens(MIXED):
        opened = job.backend.open(placement.opened_as(candidate.engine), threads=options.threads)
        session = stack.enter_context(opened)
        candidate = golden_gate(candidate, session, derived.golden)
    if candidate.report.status == "passed":
        candidate = accuracy_gate(
            candidate,
            session,
            derived,
            max_drop=options.max_drop,
            simulated=placement.verified_on != "this device",
            progress=context.progress,
        )
    return candidate, session


def _steps(
    attempts: Sequence[_Attempt],
    int8: Session | None,
    derived: Derived,
    options: CompileOptions,
    *,
    timing: bool,
    context: PassContext,
) -> tuple[MixedStep, ...]:
    samples: dict[str, Any] = {}
    if timing and int8 is not None:
        feeds = {name: array[:1] for name, array in derived.golden.items()}
        calls = {"int8": call_of(int8, feeds)}
        for number, attempt in enumerate(attempts):
            if attempt.session is not None:
                calls[str(number)] = call_of(attempt.session, feeds)
        seed = 0 if options.seed is None else options.seed
        samples = timed(calls, label="what each return costs in time", seed=seed, progress=context.progress)
    steps = []
    for number, attempt in enumerate(attempts):
        accuracy, own = attempt.outcome.report.accuracy, samples.get(str(number))
        steps.append(
            MixedStep(
                layers=attempt.layers,
                drop=None if accuracy is None else accuracy.drop,
                p50_ms=None if own is None else float(np.percentile(own, 50)) / 1e6,
                time_to_int8=None if own is None else median_ratio_interval(own, samples["int8"]),
                passed=attempt.outcome.report.status == "passed",
            )
        )
    return tuple(steps)
