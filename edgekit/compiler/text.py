"""The compile report for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.compiler.records import Accuracy, CandidateReport, DataReport, TargetReport
from edgekit.table import pairs, table

__all__ = ["data_text", "target_text"]

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
    drop = None if accuracy is None else accuracy.drop
    ratio = None if latency is None else latency.ratio_to_float
    kind = "" if accuracy is None or accuracy.kind == "measured" else " (simulated)"
    return [
        item.precision,
        item.status,
        "-" if accuracy is None else f"{100 * accuracy.value:.2f} %",
        "-" if drop is None else f"{drop.estimate:.2f} [{drop.low:.2f}, {drop.high:.2f}]{kind}",
        "-" if latency is None else f"{latency.p50_ms:.3f}",
        "-" if ratio is None else f"{ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        f"{item.engine_bytes / 1024:.0f}" if item.engine_bytes else "-",
        ", ".join(f"{count} {name}" for name, count in item.layer_counts().items()),
    ]


def data_text(data: DataReport, rows: Sequence[tuple[str, str]]) -> str:
    """Lays out where the bundle is (``rows``) and which images were used."""
    return pairs(
        [
            *rows,
            ("calibration", f"{data.calibration} images"),
            ("evaluation", f"{data.evaluation} images: {data.evaluation_source}"),
            *(("note", note) for note in data.notes),
        ]
    )
