"""Runs a call until its latency no longer falls: caches, lazy initialisation and the clock of the CPU have settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

from edgekit.errors import InternalError

__all__ = ["WarmUp", "WarmUpRules", "warm_up"]

_SMALLEST_WINDOW = 3


@dataclass(frozen=True, kw_only=True)
class WarmUpRules:
    """When warm-up ends.

    Attributes:
        window: Calls in each of the two neighbouring windows whose medians are compared; fewer, but at least three,
            when a call takes so long that four windows would not fit into ``max_s``.
        tolerance: Largest relative difference of the two medians that counts as stable.
        min_s, max_s: Bounds on the time spent; at least two windows are always run.
    """

    window: int = 20
    tolerance: float = 0.02
    min_s: float = 0.5
    max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.window < 1 or self.tolerance <= 0 or not 0 <= self.min_s <= self.max_s:
            raise InternalError(f"impossible warm-up rules: {self}")


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What warm-up did.

    Attributes:
        calls: How many calls it took.
        seconds: How long it took.
        stable: False when the time ran out before two windows agreed; the numbers that follow are then doubtful.
    """

    calls: int
    seconds: float
    stable: bool


def warm_up(call: Callable[[], object], rules: WarmUpRules, *, clock_ns: Callable[[], int] = perf_counter_ns) -> WarmUp:
    """Calls until the medians of two neighbouring windows agree, within the bounds of the rules.

    Args:
        call: What to warm up.
        rules: When to end.
        clock_ns: Nanoseconds, monotonic.
    """
    begin = clock_ns()
    typical_ns = median(_timed(call, _SMALLEST_WINDOW, clock_ns))
    fitting = int(rules.max_s * 1e9 / 4 / max(1, typical_ns))
    window = max(_SMALLEST_WINDOW, min(rules.window, fitting))
    calls = _SMALLEST_WINDOW
    previous: float | None = None
    while True:
        current = median(_timed(call, window, clock_ns))
        calls += window
        seconds = (clock_ns() - begin) / 1e9
        stable = previous is not None and abs(current - previous) <= rules.tolerance * previous
        done = (stable and seconds >= rules.min_s) or (previous is not None and seconds >= rules.max_s)
        if done:
            return WarmUp(calls=calls, seconds=seconds, stable=stable)
        previous = current


def _timed(call: Callable[[], object], count: int, clock_ns: Callable[[], int]) -> list[int]:
    times = []
    for _ in range(count):
        start = clock_ns()
        call()
        times.append(clock_ns() - start)
    return times
