"""Warm-up ends when two windows agree, and says so when they never do."""

from __future__ import annotations

import pytest

from edgekit.bench.warmup import WarmUpRules, warm_up
from edgekit.errors import InternalError

MS = 1_000_000


class Machine:
    """A clock that a simulated call moves: the latency is a function of the number of calls so far."""

    def __init__(self, latency_ns) -> None:  # type: ignore[no-untyped-def]
        self.now = 0
        self.calls = 0
        self.latency_ns = latency_ns

    def call(self) -> None:
        self.now += int(self.latency_ns(self.calls))
        self.calls += 1

    def clock(self) -> int:
        return self.now


RULES = WarmUpRules(window=10, tolerance=0.02, min_s=0.05, max_s=4.0)


def test_a_falling_latency_is_waited_for() -> None:
    machine = Machine(lambda calls: MS * (1 + 4 * 0.97**calls))
    done = warm_up(machine.call, RULES, clock_ns=machine.clock)
    assert done.stable
    assert done.calls == machine.calls
    assert machine.latency_ns(machine.calls) < 1.1 * MS


def test_a_steady_latency_ends_after_the_least_time() -> None:
    machine = Machine(lambda _: MS)
    done = warm_up(machine.call, RULES, clock_ns=machine.clock)
    assert done.stable
    assert 0.05 <= done.seconds <= 0.07


def test_a_latency_that_never_settles_is_reported() -> None:
    machine = Machine(lambda calls: MS * 1.05 ** (calls / 10))
    done = warm_up(machine.call, WarmUpRules(window=10, min_s=0.0, max_s=0.5), clock_ns=machine.clock)
    assert not done.stable
    assert done.seconds >= 0.5


def test_slow_calls_get_small_windows() -> None:
    machine = Machine(lambda _: 1000 * MS)
    done = warm_up(machine.call, RULES, clock_ns=machine.clock)
    assert done.stable
    assert done.calls == 9


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(InternalError):
        WarmUpRules(min_s=2.0, max_s=1.0)
