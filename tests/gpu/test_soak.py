"""Many calls, and many openings: memory stays what it was, on the device and in the process.

``EDGEKIT_SOAK_CALLS`` says how many calls; a leak of a few bytes each shows only when there are many.
"""

from __future__ import annotations

import os
from itertools import cycle

from benchmarks.soak import soak
from tests.gpu.grounds import Machine, check, device_bytes, golden

CALLS = int(os.environ.get("EDGEKIT_SOAK_CALLS", "240"))
CALLS_PER_OPENING = 10


def test_memory_is_flat_over_many_calls(machine: Machine) -> None:
    with machine.load() as model, device_bytes() as used:
        feeds = cycle(golden(model.bundle, model.entry)[0])
        seen = soak(lambda: model.session.infer(next(feeds)), used, calls=CALLS)
        assert seen.calls >= CALLS
        assert min(seen.device_bytes) > 0
        assert seen.flat, seen.to_dict()
        check(model)


def test_memory_is_flat_over_many_pipelined_calls(machine: Machine) -> None:
    with machine.load(streams=2) as model, device_bytes() as used:
        feeds = golden(model.bundle, model.entry)[0]

        def round_() -> None:
            for ticket in [model.session.submit(feeds[index]) for index in range(model.session.in_flight)]:
                model.session.collect(ticket)

        seen = soak(round_, used, calls=CALLS // model.session.in_flight)
        assert seen.flat, seen.to_dict()
        check(model)


def test_memory_is_flat_over_many_openings(machine: Machine) -> None:
    machine.load().close()

    def opening() -> None:
        with machine.load(self_test=False) as model:
            model.session.infer(golden(model.bundle, model.entry)[0][0])

    with device_bytes() as used:
        seen = soak(opening, used, calls=CALLS // CALLS_PER_OPENING)
    assert seen.flat, seen.to_dict()
