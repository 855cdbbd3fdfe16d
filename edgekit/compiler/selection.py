"""Which candidates ship, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgekit.bench.interleave import SMALLEST_LEAD
from edgekit.compiler.candidates import Candidate
from edgekit.targets import Target

__all__ = ["Selection", "select"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What ships.

    Attributes:
        shipped: Best first; empty when nothing passed.
        candidates: All, with their final status and reason.
        why: One sentence.
    """

    shipped: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    why: str


def select(candidates: Sequence[Candidate], *, target: Target, timed: bool, forced: str | None) -> Selection:
    """Chooses among gated candidates, given in the target's order of preference.

    Where the device chooses the engine, everything that passed ships. Where candidates were
    timed, the fastest ships; an earlier one in the target's order wins where the faster one's lead is within 2 %, so
    that noise does not pick. Otherwise the target's order decides. ``forced`` is the precision that was asked for.
    """
    passed = [item for item in candidates if item.report.status == "passed"]
    if not passed:
        return Selection(shipped=(), candidates=tuple(candidates), why="nothing passed")
    if target.build != "here":
        shipped = passed
        does = "builds, times and selects" if target.build == "device" else "times and selects"
        why = f"{' and '.join(item.precision for item in passed)} passed; the device {does}"
    elif forced is not None:
        shipped, why = passed[:1], f"{forced} was asked for"
        if passed[0].precision != forced:
            why += f", and {passed[0].precision} needs no layer in float"
    elif timed:
        best = _fastest(passed)
        shipped, why = [best], _why_fastest(best, passed)
    else:
        shipped, why = passed[:1], f"{passed[0].precision} is the first of the target's order that passed"
    names = {item.precision for item in shipped}
    final = tuple(_final(item, names, shipped[0].precision) for item in candidates)
    return Selection(shipped=tuple(item for item in final if item.precision in names), candidates=final, why=why)


def _p50(candidate: Candidate) -> float:
    latency = candidate.report.latency
    assert latency is not None
    return latency.p50_ms


def _fastest(passed: Sequence[Candidate]) -> Candidate:
    best = passed[0]
    for item in passed[1:]:
        if _p50(item) < SMALLEST_LEAD * _p50(best):
            best = item
    return best


def _why_fastest(best: Candidate, passed: Sequence[Candidate]) -> str:
    others = [f"{item.precision} {_p50(item):.3f} ms" for item in passed if item is not best]
    beaten = f", against {', '.join(others)}" if others else ""
    return f"{best.precision} passed every gate and is the fastest here: {_p50(best):.3f} ms{beaten}"


def _final(candidate: Candidate, shipped: set[str], best: str) -> Candidate:
    if candidate.precision in shipped:
        report = replace(candidate.report, status="shipped", reason="passed every gate")
    elif candidate.report.status == "passed":
        report = replace(candidate.report, reason=f"passed every gate; {best} ships")
    else:
        report = candidate.report
    return replace(candidate, report=report)
