"""Many calls, and every order of ending: nothing may be left on the (pretended) device, and nothing may grow."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest

from edgekit.errors import UserError
from edgekit.runtime.tensorrt import FLAVOURS
from tests.runtime.nvidia import Gpu
from tests.runtime.sessions.plans import images, opened

CALLS = 10_000


def handles(gpu: Gpu) -> tuple[int, int, int, int, int]:
    return len(gpu.live), len(gpu.streams), len(gpu.graphs), len(gpu.capturing), gpu.retained


@pytest.mark.parametrize("kind", FLAVOURS)
def test_ten_thousand_calls_leave_the_handles_as_they_were(gpu: Gpu, kind: str) -> None:
    frame = images(1)
    with opened(kind=kind, streams=2) as session:
        for _ in range(20):
            for ticket in [session.submit({"image": frame}) for _ in range(session.in_flight)]:
                session.collect(ticket)
        settled = handles(gpu)
        gc.collect()
        blocks = sys.getallocatedblocks()
        for number in range(CALLS):
            if number % 2:
                session.infer({"image": frame})
            else:
                session.collect(session.submit({"image": frame}))
        gc.collect()
        grown = sys.getallocatedblocks() - blocks
        assert handles(gpu) == settled
        assert all(not waiting for waiting in gpu.streams.values())
        # Far less than one block of Python's memory a call.
        assert grown < CALLS / 20
    assert handles(gpu) == (0, 0, 0, 0, 0)


def test_opening_and_closing_over_and_over_leaves_nothing(gpu: Gpu) -> None:
    for number in range(100):
        with opened(kind=list(FLAVOURS)[number % 2], streams=1 + number % 3) as session:
            for _ in range(3):
                session.infer({"image": images(1)})
        assert handles(gpu) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_sessions_may_end_in_any_order(gpu: Gpu, order: tuple[int, ...]) -> None:
    sessions = [opened(kind=kind) for kind in [*FLAVOURS, "tensorrt-plan"]]
    tickets = [[session.submit({"image": images(1)}) for _ in range(5)] for session in sessions]
    left = list(range(3))
    for index in order:
        assert gpu.retained == len(left)
        sessions[index].close()
        left.remove(index)
        for ticket in tickets[index]:
            np.testing.assert_allclose(sessions[index].collect(ticket)["logits"], images(1).mean((1, 2)), rtol=1e-6)
        for other in left:
            sessions[other].infer({"image": images(1)})
    assert handles(gpu) == (0, 0, 0, 0, 0)


def test_a_session_may_be_closed_while_threads_use_it(gpu: Gpu) -> None:
    for kind in FLAVOURS:
        session = opened(kind=kind, streams=2)

        ran = threading.Semaphore(0)

        def use() -> None:
            while True:
                session.infer({"image": images(1)})  # noqa: B023 - the loop waits for the threads
                ran.release()  # noqa: B023

        with ThreadPoolExecutor(4) as pool:
            users = [pool.submit(use) for _ in range(4)]
            for _ in range(40):
                assert ran.acquire(timeout=30)
            session.close()
            for user in users:
                with pytest.raises(UserError, match="this model is closed"):
                    user.result(30)
        assert handles(gpu) == (0, 0, 0, 0, 0)
