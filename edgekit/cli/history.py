"""A bundle's report as text: the candidates with what was measured of them, what each stage did, what was left alone.

The report is data that a bundle carries, from whatever version of edgekit made it: a key that is not there is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.table import output_width, table

__all__ = ["candidates_text", "history_text"]


def candidates_text(target: Mapping[str, Any]) -> str:
    """Lays out the candidates of one target.

    Args:
        target: An item of ``targets`` in the document ``edgekit.compile/1``.
    """
    rows = []
    for candidate in target.get("candidates", []):
        accuracy, latency = candidate.get("accuracy"), candidate.get("latency")
        counts = candidate.get("layer_counts", {})
        rows.append(
            [
                candidate["precision"],
                candidate["status"],
                "-" if accuracy is None else f"{100 * accuracy['value']:.2f} %",
                "-" if accuracy is None else _interval(accuracy.get("drop"), "{:+.2f}"),
                "-" if latency is None else f"{latency['p50_ms']:.3f}",
                "-" if latency is None else _interval(latency.get("ratio_to_float"), "{:.3f}"),
                _engine_size(candidate),
                ", ".join(f"{precision} {count}" for precision, count in counts.items()),
                candidate.get("reason", ""),
            ]
        )
    headers = [
        "precision",
        "status",
        "accuracy",
        "drop, points",
        "p50 ms",
        "time / float",
        "engine bytes",
        "layers",
        "why",
    ]
    right = ["accuracy", "p50 ms", "engine bytes"]
    title = f"{target['target']}: ships {', '.join(target.get('shipped', []))}; {target.get('why', '')}"
    blocks = [f"{title}\n{table(headers, rows, right=right, width=output_width())}"]
    blocks += [_steps_text(item["steps"]) for item in target.get("candidates", []) if item.get("steps")]
    return "\n\n".join(blocks)


def _steps_text(steps: Sequence[Mapping[str, Any]]) -> str:
    """Lays out how layers were returned to float, each line naming the layers that joined in this step."""
    rows = []
    for number, step in enumerate(steps):
        before = steps[number - 1]["layers"] if number else []
        rows.append(
            [
                str(len(step["layers"])),
                ", ".join(layer for layer in step["layers"] if layer not in before),
                _interval(step.get("drop"), "{:+.2f}"),
                "-" if step.get("p50_ms") is None else f"{step['p50_ms']:.3f}",
                _interval(step.get("time_to_int8"), "{:.3f}"),
                "yes" if step.get("passed") else "no",
            ]
        )
    headers = ["float layers", "returned in this step", "drop, points", "p50 ms", "time / int8", "good enough"]
    return f"layers returned to float:\n{table(headers, rows, right=['p50 ms'], width=output_width())}"


def history_text(report: Mapping[str, Any]) -> str:
    """Lays out the history, with everything that was skipped, and the warnings; empty when the report has neither."""
    lines: list[str] = []
    for scheme, records in report.get("history", {}).items():
        lines.append(f"history ({scheme}):")
        for record in records:
            lines.append(f"  {record['stage']}: {record['summary']}")
            lines += [f"    left alone: {item['what']} {item['where']}: {item['why']}" for item in record["skipped"]]
    lines += [f"warning: {warning}" for warning in report.get("warnings", [])]
    return "\n".join(lines)


def _engine_size(candidate: Mapping[str, Any]) -> str:
    plain = candidate.get("engine_bytes", 0)
    stored = candidate.get("stored_bytes", plain)  # older reports do not tell
    return f"{plain:,}" + (f" ({stored:,} in bundle)" if stored != plain else "") if plain else "-"


def _interval(interval: Mapping[str, Any] | None, form: str) -> str:
    if interval is None:
        return "-"
    low, high = form.format(interval["low"]), form.format(interval["high"])
    return f"{form.format(interval['estimate'])} [{low}, {high}]"
