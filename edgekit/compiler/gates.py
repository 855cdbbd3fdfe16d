"""Gates: what must hold of a candidate before it ships; each returns it with measurements and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.bench.interleave import timed
from edgekit.bench.statistics import Interval, median_ratio_interval, paired_interval
from edgekit.compiler.candidates import Candidate, is_integer
from edgekit.compiler.derived import Derived
from edgekit.compiler.images import engine_answers
from edgekit.compiler.records import Accuracy, Latency
from edgekit.errors import StageError
from edgekit.evaluate import score
from edgekit.progress import Progress
from edgekit.runtime.golden import check_golden, golden_errors
from edgekit.runtime.session import Session
from edgekit.tasks import MetricReport
from edgekit.tensorspec import LayerRecord

__all__ = ["accuracy_gate", "accuracy_of", "call_of", "drop_in_points", "golden_gate", "speed_gate"]

Array = np.ndarray[Any, Any]
_SHOWN = 5


def golden_gate(candidate: Candidate, session: Session, inputs: Mapping[str, Array]) -> Candidate:
    """The engine must answer as the program does on the golden inputs; also notes what each layer ran as."""
    layers = session.layers()
    try:
        errors = golden_errors(session.infer, inputs, candidate.golden)
    except StageError as error:
        report = replace(
            candidate.report, status="rejected", gate="golden", reason=f"the engine disagrees: {error.message}"
        )
        return replace(candidate, report=replace(report, layers=layers))
    report = replace(
        candidate.report,
        golden={name: error if math.isfinite(error) else None for name, error in errors.items()},
        golden_limit=candidate.golden_limit,
        layers=layers,
        findings=(*candidate.report.findings, *_findings(candidate, layers)),
    )
    problem = check_golden(errors, candidate.golden_limit)
    if problem is not None:
        reason = f"the engine disagrees with the program: {problem}"
        report = replace(report, status="rejected", gate="golden", reason=reason)
    return replace(candidate, report=report)


def _names(layer: str) -> list[str]:
    return [name.strip() for name in layer.split(",")]


def _findings(candidate: Candidate, layers: Sequence[LayerRecord]) -> tuple[str, ...]:
    ran_int8 = {name for layer in layers if layer.precision == "int8" for name in _names(layer.name)}
    missed = [name for name in candidate.graph.quantized_layers if name not in ran_int8]
    if not is_integer(candidate.precision) or not missed:
        return ()
    shown = ", ".join(missed[:_SHOWN]) + (f" and {len(missed) - _SHOWN} more" if len(missed) > _SHOWN else "")
    return (f"{len(missed)} of {len(candidate.graph.quantized_layers)} layers planned int8 ran otherwise: {shown}",)


def accuracy_of(report: MetricReport, reference: MetricReport | None, *, simulated: bool) -> Accuracy:
    """Puts a metric beside its float reference; the interval pairs the two image by image."""
    return Accuracy(
        metric=report.name,
        value=report.value,
        samples=report.samples,
        drop=None if reference is None else drop_in_points(reference, report),
        kind="simulated" if simulated else "measured",
        per_class={name: score.value for name, score in report.per_class.items()},
    )


def drop_in_points(reference: MetricReport, report: MetricReport) -> Interval:
    """Reference minus report in percentage points, paired image by image."""
    paired = paired_interval(reference.per_sample, report.per_sample)
    return Interval(estimate=100 * paired.estimate, low=100 * paired.low, high=100 * paired.high, level=paired.level)


def accuracy_gate(
    candidate: Candidate,
    session: Session | None,
    derived: Derived,
    *,
    max_drop: float,
    simulated: bool,
    progress: Progress,
) -> Candidate:
    """The metric may drop at most ``max_drop`` points below float.

    Args:
        candidate: With the program that it implements.
        session: Its engine; None where it cannot be opened here, and the program stands in.
        derived: Holds the float reference's images and the metrics of programs.
        max_drop: Percentage points.
        simulated: The engine does not run on its own device.
        progress: Where progress is shown.

    Returns:
        The candidate as it was where there are no labelled images.
    """
    images, reference = derived.evaluation, derived.reference
    if images is None or reference is None:
        return candidate
    label = f"evaluating {candidate.precision}"
    if session is None:
        measured = derived.metric(candidate.program, label=label)
        assert measured is not None
    else:
        try:
            with progress.task(label, len(images)) as bar:
                measured = score(images.spec, engine_answers(session, images, bar))
        except StageError as error:
            reason = f"the engine's answers cannot be scored: {error.message}"
            return replace(
                candidate, report=replace(candidate.report, status="rejected", gate="accuracy", reason=reason)
            )
    accuracy = accuracy_of(measured, reference, simulated=simulated or session is None)
    report = replace(candidate.report, accuracy=accuracy)
    drop = accuracy.drop
    assert drop is not None
    if not drop.estimate <= max_drop:
        reason = (
            f"{accuracy.metric} drops by {drop.estimate:.2f} points "
            f"(95 % interval {drop.low:.2f} to {drop.high:.2f}), at most {max_drop:.2f} allowed"
        )
        report = replace(report, status="rejected", gate="accuracy", reason=reason)
    return replace(candidate, report=report)


def speed_gate(
    candidates: Sequence[Candidate],
    sessions: Mapping[str, Session],
    feeds: Mapping[str, Array],
    *,
    seed: int,
    progress: Progress,
) -> list[Candidate]:
    """Times the candidates against each other; int8 must be no slower than the fastest float one that passed.

    Interleaved blocks of single-image calls; rejected candidates are timed too, since a user wants to know what they
    would have brought. int8 is rejected only when the whole interval of its ratio lies above 1.
    """
    calls = {
        item.precision: call_of(sessions[item.precision], feeds) for item in candidates if item.precision in sessions
    }
    if not calls:
        return list(candidates)
    samples = timed(calls, label="timing candidates", seed=seed, progress=progress)
    floats = [
        item.precision for item in candidates if not is_integer(item.precision) and item.report.status == "passed"
    ]
    best = min(floats, key=lambda name: float(np.median(samples[name])), default=None)
    return [_timed(item, samples, best) if item.precision in samples else item for item in candidates]


def call_of(session: Session, feeds: Mapping[str, Array]) -> Any:
    """One inference of one image, as a callable to be timed."""
    return lambda: session.infer(feeds)


def _timed(candidate: Candidate, samples: Mapping[str, Any], best: str | None) -> Candidate:
    own = samples[candidate.precision]
    ratio = None if best in (None, candidate.precision) else median_ratio_interval(own, samples[best])
    latency = Latency(
        p50_ms=float(np.percentile(own, 50)) / 1e6,
        p90_ms=float(np.percentile(own, 90)) / 1e6,
        samples=int(own.size),
        ratio_to_float=ratio,
    )
    report = replace(candidate.report, latency=latency)
    if is_integer(candidate.precision) and report.status == "passed" and ratio is not None and ratio.low > 1.0:
        reason = (
            f"slower than {best}: time ratio {ratio.estimate:.3f} (95 % interval {ratio.low:.3f} to {ratio.high:.3f})"
        )
        report = replace(report, status="rejected", gate="speed", reason=reason)
    return replace(candidate, report=report)
