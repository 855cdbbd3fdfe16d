"""Pipelined scenario: as many inferences under way as the engine takes at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

from edgekit.bench.quiet import collector_paused
from edgekit.bench.single_stream import Budget
from edgekit.errors import InternalError
from edgekit.runtime.session import Array, Session, Ticket

__all__ = ["Throughput", "measure_throughput"]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Completed inferences per second of the engine alone.

    Attributes:
        inferences_per_s: Over the whole duration.
        inferences: How many were completed.
        seconds: The duration.
        in_flight: How many were under way at once.
    """

    inferences_per_s: float
    inferences: int
    seconds: float
    in_flight: int


def measure_throughput(session: Session, feeds: Sequence[Mapping[str, Array]], budget: Budget) -> Throughput:
    """Keeps ``session.in_flight`` inferences under way and counts what comes out.

    The pipeline is filled before the clock starts and drained after it stops, so that neither counts.

    Args:
        session: The engine, warm.
        feeds: What is fed, in turn.
        budget: How long.

    Raises:
        InternalError: No feeds.
    """
    if not feeds:
        raise InternalError("nothing to feed")
    tickets: deque[Ticket] = deque()
    for number in range(session.in_flight):
        tickets.append(session.submit(feeds[number % len(feeds)]))
    done = 0
    with collector_paused():
        begin = perf_counter_ns()
        earliest, latest = begin + int(budget.min_s * 1e9), begin + int(budget.max_s * 1e9)
        while True:
            session.collect(tickets.popleft())
            done += 1
            now = perf_counter_ns()
            if now >= latest or (now >= earliest and done >= budget.min_calls):
                break
            tickets.append(session.submit(feeds[(done + session.in_flight) % len(feeds)]))
    for ticket in tickets:
        session.collect(ticket)
    seconds = (now - begin) / 1e9
    return Throughput(inferences_per_s=done / seconds, inferences=done, seconds=seconds, in_flight=session.in_flight)
