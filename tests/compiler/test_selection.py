"""Which of several gated candidates ships."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.backends.base import PortableGraph
from edgekit.compiler.candidates import Candidate
from edgekit.compiler.records import CandidateReport, Latency
from edgekit.compiler.selection import select
from edgekit.targets import load_target
from tests.networks import folded

TARGET = load_target("x86-cpu")
PROGRAM = folded("residual")


def candidate(precision: str, p50_ms: float | None = None, status: str = "passed") -> Candidate:
    latency = None
    if p50_ms is not None:
        latency = Latency(p50_ms=p50_ms, p90_ms=p50_ms, samples=1, ratio_to_float=None)
    reason = "" if status == "passed" else "a gate's reason"
    return Candidate(
        precision=precision,
        program=PROGRAM,
        graph=PortableGraph(data=b"", precision=precision, inputs=(), outputs=()),
        engine=None,
        options={},
        golden={},
        golden_limit=0.1,
        report=CandidateReport(precision=precision, status=status, reason=reason, latency=latency),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("times", "shipped"),
    [
        ({"int8": 1.0, "bf16": 2.0, "fp32": 3.0}, "int8"),
        ({"int8": 2.0, "bf16": 1.0, "fp32": 3.0}, "bf16"),
        ({"int8": 1.0, "bf16": 0.99, "fp32": 0.985}, "int8"),
        ({"int8": 1.0, "bf16": 0.97, "fp32": 0.96}, "bf16"),
    ],
)
def test_the_fastest_ships_and_a_lead_within_two_percent_does_not_count(times: dict[str, float], shipped: str) -> None:
    choice = select([candidate(*item) for item in times.items()], target=TARGET, timed=True, forced=None)
    assert [item.precision for item in choice.shipped] == [shipped]
    assert f"{shipped} passed every gate and is the fastest here: {times[shipped]:.3f} ms" in choice.why
    status = {item.precision: item.report.status for item in choice.candidates}
    assert status == {name: "shipped" if name == shipped else "passed" for name in times}
    assert {item.report.reason for item in choice.candidates if item.precision != shipped} == {
        f"passed every gate; {shipped} ships"
    }


def test_what_a_gate_rejected_does_not_ship_however_fast(  # the reason stays as the gate gave it
) -> None:
    candidates = [candidate("int8", 0.1, "rejected"), candidate("bf16", 2.0), candidate("fp32", 1.0, "failed")]
    choice = select(candidates, target=TARGET, timed=True, forced=None)
    assert [item.precision for item in choice.shipped] == ["bf16"]
    assert [item.report.reason for item in choice.candidates if item.precision != "bf16"] == ["a gate's reason"] * 2


def test_untimed_candidates_ship_in_the_target_s_order() -> None:
    choice = select([candidate("int8"), candidate("fp32")], target=TARGET, timed=False, forced=None)
    assert [item.precision for item in choice.shipped] == ["int8"]
    assert choice.why == "int8 is the first of the target's order that passed"


def test_a_device_that_builds_gets_all_that_passed() -> None:
    device = replace(TARGET, build="device")
    candidates = [candidate("int8"), candidate("bf16", status="rejected"), candidate("fp32")]
    choice = select(candidates, target=device, timed=False, forced=None)
    assert [item.precision for item in choice.shipped] == ["int8", "fp32"]
    assert choice.why == "int8 and fp32 passed; the device builds, times and selects"


def test_a_forced_precision_ships_because_it_was_asked_for() -> None:
    choice = select([candidate("fp32", 9.0)], target=TARGET, timed=True, forced="fp32")
    assert (choice.shipped[0].precision, choice.why) == ("fp32", "fp32 was asked for")


def test_nothing_ships_when_nothing_passed() -> None:
    choice = select([candidate("int8", status="rejected")], target=TARGET, timed=False, forced="int8")
    assert choice.shipped == ()
    assert [item.report.status for item in choice.candidates] == ["rejected"]
