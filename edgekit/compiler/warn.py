"""What a user should know after a compilation, each sentence with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.compiler.candidates import is_integer
from edgekit.compiler.records import CandidateReport, DataReport, TargetReport
from edgekit.compiler.shaping import StageReport
from edgekit.program import Record

__all__ = ["data_warnings", "diagnostic_warnings", "stage_warnings", "target_warnings", "training_warnings"]

_SHOWN = 3
_LARGE_DISTANCE = 0.1


def data_warnings(data: DataReport) -> list[str]:
    """Says how many images could not be read."""
    if not data.skipped:
        return []
    rest = len(data.skipped) - _SHOWN
    shown = "; ".join(data.skipped[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")
    return [f"{len(data.skipped)} images could not be read and were skipped: {shown}"]


def stage_warnings(stages: Sequence[StageReport]) -> list[str]:
    """Says which stages were rolled back."""
    return [f"stage '{stage.title}' was {stage.why}" for stage in stages if not stage.kept]


def training_warnings(scheme: str, records: Sequence[Record]) -> list[str]:
    """Says where the training of an int8 program brought nothing."""
    return [
        f"{scheme}: its training was not used: {item.why}"
        for record in records
        if record.stage == "qat"
        for item in record.skipped
        if item.what == "training"
    ]


def diagnostic_warnings(scheme: str, diagnostics: Mapping[str, Any]) -> list[str]:
    """Says in one line for each kind of finding which tensors it is about, and what would help.

    Args:
        scheme: Which int8 scheme.
        diagnostics: Its diagnostics.
    """
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for finding in diagnostics.get("findings", ()):
        kinds.setdefault(finding["what"], []).append(finding)
    lines = []
    for what, findings in kinds.items():
        rest = len(findings) - _SHOWN
        shown = "; ".join(f"{item['where']}: {item['why']}" for item in findings[:_SHOWN])
        shown += f"; and {rest} more" if rest > 0 else ""
        lines.append(f"{scheme}: {what} ({shown}): {findings[0]['help']}")
    return lines


def target_warnings(target: TargetReport, *, accuracy_known: bool) -> list[str]:
    """Says what was rejected or failed, what ran otherwise than planned, and what nothing vouches for."""
    lines = []
    for item in target.candidates:
        if item.status in ("rejected", "failed"):
            verdict = "was rejected" if item.status == "rejected" else "failed"
            lines.append(f"{target.target}: {item.precision} {verdict}: {item.reason}")
        if item.status == "shipped":
            lines += [f"{target.target}: {finding}" for finding in item.findings]
            lines += _far_half(target, item)
            lines += [] if accuracy_known else _unknown_accuracy(target, item)
    return lines


def _far_half(target: TargetReport, item: CandidateReport) -> list[str]:
    if item.half is None or item.half.distance <= item.half.limit:
        return []
    return [
        f"{target.target}: fp16 moves the {item.precision} answers by {100 * item.half.distance:.2g} % on the golden "
        f"inputs (relative L2, {100 * item.half.limit:.2g} % expected), and no single layer is to blame: compare "
        "accuracy on labelled images (--eval-data)"
    ]


def _unknown_accuracy(target: TargetReport, item: CandidateReport) -> list[str]:
    if not is_integer(item.precision) or item.float_distance is None or item.float_distance <= _LARGE_DISTANCE:
        return []
    return [
        f"{target.target}: int8 answers lie {100 * item.float_distance:.0f} % from the float ones on the golden inputs "
        "(relative L2), and without labelled images nothing says what that costs"
    ]
