"""The result of a benchmark: as data, as JSON, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgekit.bench.probes import ProcessProbe
from edgekit.bench.statistics import Interval, LatencySummary
from edgekit.bench.throughput import Throughput
from edgekit.bench.warmup import WarmUp
from edgekit.config import to_dict

__all__ = ["BenchReport", "Comparison", "Conditions", "Side", "format_comparison", "format_report"]

Verdict = Literal["faster", "slower", "no difference beyond noise"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What was measured.

    Attributes:
        path: The bundle, as the user named it.
        name: Model name.
        content_digest: Digest of the bundle's content.
        size_bytes: Size of the bundle.
        target, backend, precision: Of the entry that was loaded.
        session: How it ran: device, precision hint, threads, streams, backend version.
    """

    path: str
    name: str
    content_digest: str
    size_bytes: int
    target: str
    backend: str
    precision: str
    session: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How it was measured.

    Attributes:
        frames: What was fed.
        duration_s: Least duration of each scenario.
        warm_up: What warm-up did.
        harness_overhead_us: What the harness adds to each sample (median of an empty call).
        load_average: 1-minute load average when the benchmark began; None where the system has none.
        collector: What Python's garbage collector did.
        clock: The clock.
    """

    frames: str
    duration_s: float
    warm_up: WarmUp
    harness_overhead_us: float
    load_average: float | None
    collector: str = "paused while timing"
    clock: str = "time.perf_counter_ns"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two bundles, measured in turns in one process, engine only, on the same frames.

    Attributes:
        side, baseline: What was compared.
        latency, baseline_latency: Of all samples of each side.
        ratio: Time of the bundle over time of the baseline; below 1 the bundle is faster.
        ratio_p10, ratio_p90: Spread of the ratio over the blocks.
        blocks: How many blocks.
        samples_per_block: Samples of each side in a block.
        verdict: ``no difference beyond noise`` when the interval of the ratio contains 1.
    """

    side: Side
    baseline: Side
    latency: LatencySummary
    baseline_latency: LatencySummary
    ratio: Interval
    ratio_p10: float
    ratio_p90: float
    blocks: int
    samples_per_block: int

    @property
    def verdict(self) -> Verdict:
        """What may be claimed."""
        if self.ratio.contains(1.0):
            return "no difference beyond noise"
        return "faster" if self.ratio.estimate < 1 else "slower"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {**to_dict(self), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """One benchmark.

    Attributes:
        side: What was measured.
        machine: Description of the machine.
        conditions: How.
        engine: Latency of ``session.infer``, single stream.
        preprocess, postprocess, end_to_end: From frame to result, timed apart on each sample; None for a model
            without a task.
        engine_in_pipeline: The engine's part of ``end_to_end``; None for a model without a task.
        throughput: Pipelined, engine only.
        process: Measurements of fresh processes; None when they were skipped.
        comparison: Against the baseline, if one was given.
        warnings: What makes the numbers doubtful.
    """

    schema: ClassVar[str] = "edgekit.bench/1"

    side: Side
    machine: Mapping[str, Any]
    conditions: Conditions
    engine: LatencySummary
    preprocess: LatencySummary | None
    engine_in_pipeline: LatencySummary | None
    postprocess: LatencySummary | None
    end_to_end: LatencySummary | None
    throughput: Throughput
    process: ProcessProbe | None
    comparison: Comparison | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, with the schema's name first."""
        data: dict[str, Any] = {"schema": self.schema, **to_dict(self)}
        if self.comparison is not None:
            data["comparison"] = self.comparison.to_dict()
        return data


def format_report(report: BenchReport) -> str:
    """Returns the report as text for a terminal."""
    conditions = report.conditions
    lines = [*_side_lines("model", report.side), *_machine_lines(report.machine)]
    lines += [
        f"frames     {conditions.frames}",
        f"conditions {conditions.duration_s:g} s a scenario after {conditions.warm_up.calls} warm-up calls, "
        f"garbage collector {conditions.collector}, harness {conditions.harness_overhead_us:.2f} us a sample",
        "",
        *_latency_table(
            (
                ("engine", report.engine),
                ("preprocess", report.preprocess),
                ("+ engine", report.engine_in_pipeline),
                ("+ postprocess", report.postprocess),
                ("= end to end", report.end_to_end),
            )
        ),
        "",
        f"throughput {report.throughput.inferences_per_s:,.1f} inferences/s, engine only, "
        f"{report.throughput.in_flight} in flight",
    ]
    if report.process is not None:
        process = report.process
        lines.append(
            f"process    load {process.load_ms:,.1f} ms, first inference {process.first_inference_ms:,.2f} ms, "
            f"peak memory {process.peak_rss_bytes / 2**20:,.0f} MiB ({process.rss_before_bytes / 2**20:,.0f} before "
            f"loading; {process.processes} fresh processes)"
        )
    if report.comparison is not None:
        lines += ["", format_comparison(report.comparison)]
    lines += [f"warning    {warning}" for warning in report.warnings]
    return "\n".join(lines)


def format_comparison(comparison: Comparison) -> str:
    """Returns a comparison as text for a terminal."""
    ratio = comparison.ratio
    lines = [
        *_side_lines("baseline", comparison.baseline),
        "",
        *_latency_table((("model", comparison.latency), ("baseline", comparison.baseline_latency))),
        "",
        f"ratio      {ratio.estimate:.3f} of the baseline's time, {ratio.level:.0%} interval {ratio.low:.3f} to "
        f"{ratio.high:.3f}; blocks from {comparison.ratio_p10:.3f} (p10) to {comparison.ratio_p90:.3f} (p90); "
        f"{comparison.blocks} interleaved blocks of {comparison.samples_per_block}",
        f"verdict    {comparison.verdict}",
    ]
    return "\n".join(lines)


def _side_lines(role: str, side: Side) -> list[str]:
    ran = ", ".join(f"{key} {value}" for key, value in side.session.items())
    return [
        f"{role:<10} {side.name} ({side.path}, {side.size_bytes / 2**20:.2f} MiB), "
        f"{side.precision} for {side.target} on {side.backend}",
        f"ran as     {ran}",
    ]


def _machine_lines(machine: Mapping[str, Any]) -> list[str]:
    facts = []
    for key, value in machine.items():
        if value is None:
            continue
        if key == "memory_bytes":
            facts.append(f"memory: {value / 2**30:.1f} GiB")
            continue
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else None
        text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else text
        facts.append(f"{key.replace('_', ' ')}: {value if text is None else text}")
    return [f"{'machine' if number == 0 else '':<10} {fact}" for number, fact in enumerate(facts)]


def _latency_table(rows: Iterable[tuple[str, LatencySummary | None]]) -> list[str]:
    lines = [f"{'latency, ms':<14}{'p50':>10}{'p90':>10}{'p99':>10}{'min':>10}{'mean':>10}{'samples':>10}"]
    for name, row in rows:
        if row is not None:
            values = (row.p50_ms, row.p90_ms, row.p99_ms, row.min_ms, row.mean_ms)
            lines.append(f"{name:<14}" + "".join(f"{value:>10.3f}" for value in values) + f"{row.samples:>10}")
    return lines
