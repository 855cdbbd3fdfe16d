from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from edgekit.errors import StageError, UserError
from edgekit.runtime.sessions.requests import RequestPool


def answer(request: str) -> str:
    return request.upper()


def test_a_caller_gets_the_request_of_the_oldest_ticket_and_its_owner_the_outputs() -> None:
    pool: RequestPool[str, str] = RequestPool(["a", "b"])
    first = pool.start(pool.acquire(), answer, ())
    second = pool.start(pool.acquire(), answer, ())
    taken = pool.acquire()
    assert taken == "b"
    assert pool.collect(first) == "B"
    assert pool.collect(second) == "A"
    pool.release(taken)
    assert {pool.acquire(), pool.acquire()} == {"a", "b"}


def test_a_failed_inference_is_told_to_its_owner_alone() -> None:
    def fail(request: str) -> str:
        raise StageError("the engine broke")

    pool: RequestPool[str, str] = RequestPool(["a"])
    ticket = pool.start(pool.acquire(), fail, ())
    assert pool.acquire() == "a"
    pool.release("a")
    with pytest.raises(StageError, match="the engine broke"):
        pool.collect(ticket)
    with pytest.raises(UserError, match="redeemed before"):
        pool.collect(ticket)


def test_who_waits_is_woken_by_a_release_a_submission_and_a_close() -> None:
    def waits(wake: Callable[[RequestPool[str, str]], object]) -> str:
        pool: RequestPool[str, str] = RequestPool(["a"])
        pool.acquire()
        got: list[str] = []

        def wait() -> None:
            try:
                got.append(pool.acquire())
            except UserError as error:
                got.append(error.message)

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        wake(pool)
        waiter.join(timeout=30)
        return got[0]

    assert waits(lambda pool: pool.release("a")) == "a"
    assert waits(lambda pool: pool.start("a", answer, ())) == "a"
    assert waits(lambda pool: pool.close()) == "this model is closed"


def test_closing_waits_for_what_runs_and_keeps_its_outputs() -> None:
    finished = []

    def slow(request: str) -> str:
        finished.append(request)
        return request.upper()

    pool: RequestPool[str, str] = RequestPool(["a"])
    ticket = pool.start(pool.acquire(), slow, ())
    assert pool.close()
    assert finished == ["a"]
    assert not pool.close()
    assert pool.collect(ticket) == "A"
    with pytest.raises(UserError, match="closed"):
        pool.acquire()
