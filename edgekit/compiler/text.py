"""The compile report for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.compiler.records import Accuracy, CandidateReport, DataReport, TargetReport
from edgekit.compiler.shaping import StageReport
from edgekit.table import pairs, table

__all__ = ["data_text", "stages_text", "target_text"]


def stages_text(stages: Sequence[StageReport], reference: Accuracy | None) -> str:
    """Lays out what happened to the network before it was quantized."""
    rows = [
        [
            stage.title,
            "kept" if stage.kept else "rolled back",
            "-" if stage.accuracy is None else f"{100 * stage.accuracy.value:.2f} %",
            _drop(stage.accuracy),
            f"{stage.macs / 1e6:.1f}",
            f"{stage.parameters / 1e3:.0f}",
            "-" if stage.latency is None else f"{stage.latency.ratio.estimate:.3f}",
        ]
        for stage in stages
    ]
    if reference is not None:
        rows.append(["the given network", "reference", f"{100 * reference.value:.2f} %", "", "", "", ""])
    heads = ["stage", "verdict", "float accuracy", "drop, points", "MACs, millions", "parameters, thousands", "time"]
    lines = [
        f"time of '{stage.title}': {item.after_ms:.3f} ms instead of {item.before_ms:.3f}, ratio "
        f"{item.ratio.estimate:.3f} [{item.ratio.low:.3f}, {item.ratio.high:.3f}], {item.precision} on {item.target}"
        for stage in stages
        if (item := stage.latency) is not None
    ]
    text = table(heads, rows, right=["float accuracy", "MACs, millions", "parameters, thousands", "time"])
    return "\n".join([text, *lines])


_SHOWN = 8


def target_text(target: TargetReport, reference: Accuracy | None) -> str:
    """Lays out one target: what ships and why, then its candidates."""
    head = f"{target.target}: ships {' and '.join(target.shipped)}\n  {target.why}"
    rows = [_row(item) for item in target.candidates]
    if reference is not None:
        samples = f"{reference.metric} of {reference.samples} images"
        rows.append(["float program", "reference", f"{100 * reference.value:.2f} %", samples, "", "", "", ""])
    heads = [
        "candidate",
        "verdict",
        "accuracy",
        "drop, points",
        "p50 ms",
        "time / float",
        "engine KiB",
        "layers ran as",
    ]
    body = table(heads, rows, right=["accuracy", "p50 ms", "engine KiB"])
    rehearsals = [
        f"  {item.precision}: rehearsed with {item.rehearsal['builder']}: built"
        for item in target.candidates
        if item.rehearsal is not None and item.rehearsal["built"]
    ]
    return "\n".join([head, body, *rehearsals, *(line for item in target.candidates for line in _kept(item))])


def _kept(item: CandidateReport) -> list[str]:
    """The layers that stay fp32 in a half graph; what only moves values between them goes without saying."""
    shown = [] if item.half is None else [kept for kept in item.half.kept if kept.cause != "input"]
    rest = len(shown) - _SHOWN
    lines = [f"  {item.precision}: kept in fp32: {kept.layer} ({kept.operator}): {kept.why}" for kept in shown[:_SHOWN]]
    return lines + ([f"  {item.precision}: and {rest} more kept in fp32 (--json lists them)"] if rest > 0 else [])


def _row(item: CandidateReport) -> list[str]:
    accuracy, latency = item.accuracy, item.latency
    ratio = None if latency is None else latency.ratio_to_float
    simulated = accuracy is not None and accuracy.drop is not None and accuracy.kind == "simulated"
    kind = " (simulated)" if simulated else ""
    return [
        item.precision,
        item.status,
        "-" if accuracy is None else f"{100 * accuracy.value:.2f} %",
        f"{_drop(accuracy)}{kind}",
        "-" if latency is None else f"{latency.p50_ms:.3f}",
        "-" if ratio is None else f"{ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        _engine_size(item),
        ", ".join(f"{count} {name}" for name, count in item.layer_counts().items()),
    ]


def _drop(accuracy: Accuracy | None) -> str:
    drop = None if accuracy is None else accuracy.drop
    return "-" if drop is None else f"{drop.estimate:.2f} [{drop.low:.2f}, {drop.high:.2f}]"


def _engine_size(item: CandidateReport) -> str:
    if not item.engine_bytes:
        return "-"
    size = f"{item.engine_bytes / 1024:.0f}"
    return size if item.stored_bytes == item.engine_bytes else f"{size} ({item.stored_bytes / 1024:.0f} in bundle)"


def data_text(data: DataReport, rows: Sequence[tuple[str, str]]) -> str:
    """Lays out where the bundle is (``rows``) and which images were used."""
    return pairs(
        [
            *rows,
            ("calibration", f"{data.calibration} images"),
            ("evaluation", f"{data.evaluation} images: {data.evaluation_source}"),
            *([("training", f"{data.training} images")] if data.training else []),
            *(("note", note) for note in data.notes),
        ]
    )
