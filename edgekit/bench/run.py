"""The benchmark of a bundle, and the comparison of two."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bench.feeds import Frames, golden_feeds, golden_frames, image_frames
from edgekit.bench.interleave import interleave
from edgekit.bench.probes import probe_process
from edgekit.bench.report import BenchReport, Comparison, Conditions, Side
from edgekit.bench.single_stream import Budget, Pipeline, harness_overhead_ns, measure, measure_stages
from edgekit.bench.statistics import LatencySummary, median_ratio_interval, summarize
from edgekit.bench.throughput import measure_throughput
from edgekit.bench.warmup import WarmUpRules, warm_up
from edgekit.errors import UserError
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime import Model, load
from edgekit.runtime.machine import describe_machine
from edgekit.runtime.session import Array

__all__ = ["BenchOptions", "bench", "compare"]

_MIN_CALLS = 50
_BLOCKS = 40
_FEWEST_BLOCKS = 12
_MAX_PER_VISIT = 200
_SLOW_CALL_S = 0.02
_BUSY_LOAD_PER_CORE = 0.5


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How a benchmark runs.

    Attributes:
        target: Which entry of the bundle; None takes the best for this machine.
        threads, streams: Engine threads and streams; None leaves them to the engine's options.
        trust_plan: Open engines that are code; see :func:`edgekit.runtime.load`.
        cuda_graphs: Launch inferences as CUDA graphs on NVIDIA GPUs.
        duration_s: Least duration of each scenario, seconds.
        images: Folder of images to feed; None feeds the bundle's golden inputs.
        processes: Fresh processes for load time, first inference and memory; 0 skips them.
        seed: Seed of the choice of images and of the interleaving order.
        warm_up: When warm-up ends.
    """

    target: str | None = None
    threads: int | None = None
    streams: int | None = None
    trust_plan: bool = False
    cuda_graphs: bool = True
    duration_s: float = 5.0
    images: Path | None = None
    processes: int = 3
    seed: int = 0
    warm_up: WarmUpRules = field(default_factory=WarmUpRules)

    def __post_init__(self) -> None:
        if not self.duration_s > 0:
            raise UserError(f"duration_s: expected more than 0 seconds, got {self.duration_s}")
        if self.processes < 0:
            raise UserError(f"processes: expected 0 or more, got {self.processes}")


def bench(
    path: Path, options: BenchOptions, *, baseline: Path | None = None, progress: Progress | None = None
) -> BenchReport:
    """Measures a bundle on this machine: latency by stage, throughput, load time, memory.

    Args:
        path: The bundle.
        options: How.
        baseline: Another bundle to compare with, see :func:`compare`.
        progress: Where progress is shown; None shows none.

    Raises:
        BundleError: A bundle is damaged.
        MachineMismatch: A bundle cannot run here.
        BackendMissing: The inference library is missing.
        DataError: The image folder cannot be used.
        StageError: A fresh process failed.
    """
    shown = SilentProgress() if progress is None else progress
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with _open(path, options) as model:
        feeds, frames = _inputs(model, options)
        session = model.session
        with shown.task("warm-up", None) as task:
            warmed = warm_up(_advancing(lambda: session.infer(feeds[0]), task.advance), options.warm_up)
        budget = Budget(min_s=options.duration_s, min_calls=_MIN_CALLS, max_s=4 * options.duration_s)
        with shown.task("engine latency", None) as task:
            engine = summarize(
                measure(lambda number: session.infer(feeds[number % len(feeds)]), budget, on_call=task.advance)
            )
        stages: dict[str, LatencySummary | None] = dict.fromkeys(("preprocess", "engine", "postprocess", "total"))
        if frames is not None:
            with shown.task("end-to-end latency", None) as task:
                timed = measure_stages(_pipeline(model), frames.frames, budget, on_call=task.advance)
            stages = {
                "preprocess": summarize(timed.preprocess_ns),
                "engine": summarize(timed.engine_ns),
                "postprocess": summarize(timed.postprocess_ns),
                "total": summarize(timed.total_ns),
            }
        throughput = measure_throughput(session, feeds, budget)
        side = _side(path, model)
        source = f"{len(feeds)} golden inputs" if frames is None else frames.source
    process = None
    if options.processes > 0:
        process = probe_process(
            path,
            target=options.target,
            threads=options.threads,
            streams=options.streams,
            trust_plan=options.trust_plan,
            cuda_graphs=options.cuda_graphs,
            processes=options.processes,
        )
    machine = describe_machine()
    conditions = Conditions(
        frames=source,
        duration_s=options.duration_s,
        warm_up=warmed,
        harness_overhead_us=harness_overhead_ns() / 1e3,
        load_average=load_average,
    )
    return BenchReport(
        side=side,
        machine=machine,
        conditions=conditions,
        engine=engine,
        preprocess=stages["preprocess"],
        engine_in_pipeline=stages["engine"],
        postprocess=stages["postprocess"],
        end_to_end=stages["total"],
        throughput=throughput,
        process=process,
        comparison=None if baseline is None else compare(path, baseline, options, progress=shown),
        warnings=_warnings(conditions, machine),
    )


def compare(path: Path, baseline: Path, options: BenchOptions, *, progress: Progress | None = None) -> Comparison:
    """Measures two bundles' engines in turns, in one process, on the same frames.

    Blocks of calls alternate in mirrored order, so that neither the order nor the machine's drift favours a side; see
    :func:`edgekit.bench.interleave.interleave` and :func:`edgekit.bench.statistics.median_ratio_interval`.

    Args:
        path: The bundle.
        baseline: The bundle to compare with; ``options.target`` applies to both.
        options: How.
        progress: Where progress is shown; None shows none.

    Raises:
        UserError: The two take different inputs, so that there is nothing to compare.
        BundleError, MachineMismatch, BackendMissing, DataError: As :func:`bench`.
    """
    shown = SilentProgress() if progress is None else progress
    with _open(path, options) as model, _open(baseline, options) as other:
        feeds, other_feeds = _shared_inputs(model, other, options)
        calls = {"model": _cycled(model, feeds), "baseline": _cycled(other, other_feeds)}
        for call in calls.values():
            warm_up(call, options.warm_up)
        plan = _plan([_typical_s(call) for call in calls.values()], options.duration_s)
        with shown.task("comparison", plan.blocks) as task:
            samples = interleave(
                calls,
                blocks=plan.blocks,
                per_visit=plan.per_visit,
                settle=plan.settle,
                seed=options.seed,
                on_block=task.advance,
            )
        ratios = np.median(samples["model"], axis=1) / np.median(samples["baseline"], axis=1)
        p10, p90 = (float(value) for value in np.percentile(ratios, (10, 90)))
        return Comparison(
            side=_side(path, model),
            baseline=_side(baseline, other),
            latency=summarize(samples["model"].ravel()),
            baseline_latency=summarize(samples["baseline"].ravel()),
            ratio=median_ratio_interval(samples["model"], samples["baseline"]),
            ratio_p10=p10,
            ratio_p90=p90,
            blocks=plan.blocks,
            samples_per_block=2 * plan.per_visit,
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    blocks: int
    per_visit: int
    settle: int


def _plan(typical_s: Sequence[float], duration_s: float) -> _Plan:
    """Spreads the duration over 40 blocks; slow engines get fewer calls a visit, then fewer blocks."""
    round_s = 2 * sum(typical_s)
    settle = 1 if max(typical_s) > _SLOW_CALL_S else 2
    per_visit = max(1, min(_MAX_PER_VISIT, int(duration_s / (_BLOCKS * round_s)) - settle))
    affordable = int(2 * duration_s / (round_s * (per_visit + settle)))
    return _Plan(blocks=max(_FEWEST_BLOCKS, min(_BLOCKS, affordable)), per_visit=per_visit, settle=settle)


def _open(path: Path, options: BenchOptions) -> Model:
    return load(
        path,
        target=options.target,
        threads=options.threads,
        streams=options.streams,
        trust_plan=options.trust_plan,
        cuda_graphs=options.cuda_graphs,
    )


def _inputs(model: Model, options: BenchOptions) -> tuple[tuple[Mapping[str, Array], ...], Frames | None]:
    """Returns what the engine is fed, and the frames for the whole way where the model has a task."""
    if options.images is not None:
        if model.spec is None:
            raise UserError(
                f"{model.bundle.path}: has no task, so images cannot be prepared for it",
                hint="leave the images out: the golden inputs are fed",
            )
        frames = image_frames(options.images, model.spec.input, seed=options.seed)
        return tuple(model.prepare(frame) for frame in frames.frames), frames
    feeds = golden_feeds(model.bundle, model.entry)
    return feeds, None if model.spec is None else golden_frames(feeds)


def _shared_inputs(
    model: Model, other: Model, options: BenchOptions
) -> tuple[tuple[Mapping[str, Array], ...], tuple[Mapping[str, Array], ...]]:
    feeds, frames = _inputs(model, options)
    if frames is not None and other.spec is not None:
        return feeds, tuple(other.prepare(frame) for frame in frames.frames)
    if model.entry.inputs != other.entry.inputs:
        raise UserError(
            f"{model.bundle.path} and {other.bundle.path} take different inputs ({model.entry.inputs} against "
            f"{other.entry.inputs}), expected the same",
            hint="compare two bundles of the same model, or two bundles with a task",
        )
    return feeds, feeds


def _pipeline(model: Model) -> Pipeline[Any, Any, Any]:
    return Pipeline(
        preprocess=model.prepare,
        engine=model.session.infer,
        postprocess=lambda outputs, frame: model.decode(outputs, frame.shape),
    )


def _cycled(model: Model, feeds: Sequence[Mapping[str, Array]]) -> Callable[[], object]:
    infer = model.session.infer
    position = 0

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(feeds)
        return infer(feeds[position])

    return call


def _advancing(call: Callable[[], object], advance: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        call()
        advance()

    return both


def _typical_s(call: Callable[[], object]) -> float:
    return float(np.median(measure(lambda _: call(), Budget(min_s=0.0, min_calls=5, max_s=5.0)))) / 1e9


def _side(path: Path, model: Model) -> Side:
    entry, manifest = model.entry, model.bundle.manifest
    return Side(
        path=str(path),
        name=manifest.name,
        content_digest=manifest.content_digest,
        size_bytes=model.bundle.size_bytes,
        target=entry.target,
        backend=entry.backend,
        precision=entry.precision,
        session=model.session.describe(),
    )


def _warnings(conditions: Conditions, machine: Mapping[str, Any]) -> tuple[str, ...]:
    warnings = []
    if not conditions.warm_up.stable:
        warnings.append(
            f"latency was still changing after {conditions.warm_up.seconds:.0f} s of warm-up: the machine is not quiet"
        )
    cores = machine["usable_cores"]
    average = conditions.load_average
    if average is not None and cores is not None and average > _BUSY_LOAD_PER_CORE * cores:
        warnings.append(f"other programs were running (load average {average:.1f} on {cores} cores)")
    governor = machine.get("governor")
    if isinstance(governor, str) and governor in ("powersave", "ondemand", "conservative", "schedutil"):
        warnings.append(f"the CPU's frequency governor is '{governor}': the clock may change while measuring")
    return tuple(warnings)
