"""Warnings name the number that they are about."""

from __future__ import annotations

from dataclasses import replace

from edgekit.compiler.records import CandidateReport, DataReport, TargetReport
from edgekit.compiler.warn import data_warnings, target_warnings

FAR = CandidateReport(precision="int8", status="shipped", reason="passed every gate", float_distance=0.42)
NEAR = replace(FAR, float_distance=0.02)


def target(*candidates: CandidateReport) -> TargetReport:
    return TargetReport(
        target="x86-cpu",
        title="",
        shipped=("int8",),
        why="",
        latency="unverified",
        verified_on="not here",
        candidates=candidates,
    )


def test_int8_far_from_float_is_warned_about_where_no_accuracy_is_known() -> None:
    (line,) = target_warnings(target(FAR), accuracy_known=False)
    assert line.startswith("x86-cpu: int8 answers lie 42 % from the float ones")
    assert target_warnings(target(FAR), accuracy_known=True) == []
    assert target_warnings(target(NEAR), accuracy_known=False) == []


def test_what_was_rejected_failed_or_ran_otherwise_is_said() -> None:
    rejected = replace(NEAR, status="rejected", reason="slower")
    failed = replace(NEAR, precision="bf16", status="failed", reason="no kernel")
    shipped = replace(NEAR, precision="fp32", findings=("1 of 4 layers planned int8 ran otherwise: stem",))
    assert target_warnings(target(rejected, failed, shipped), accuracy_known=True) == [
        "x86-cpu: int8 was rejected: slower",
        "x86-cpu: bf16 failed: no kernel",
        "x86-cpu: 1 of 4 layers planned int8 ran otherwise: stem",
    ]


def test_skipped_images_are_counted_and_the_first_named() -> None:
    assert data_warnings(DataReport()) == []
    skipped = tuple(f"cat/{number}.png: damaged" for number in range(5))
    (line,) = data_warnings(DataReport(skipped=skipped))
    assert line.startswith("5 images could not be read and were skipped: cat/0.png: damaged; ")
    assert line.endswith("; and 2 more")
