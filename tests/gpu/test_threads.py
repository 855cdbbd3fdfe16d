"""Two sessions in threads, of one model and of two: every answer belongs to its question."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from edgekit.runtime.golden import rel_l2
from edgekit.runtime.model import Model
from tests.gpu.grounds import Machine, check, golden

ROUNDS = 30


def answers(model: Model) -> list[np.ndarray]:
    """What the model answers to each golden input; they must differ, or a mixed-up answer would pass."""
    inputs, _ = golden(model.bundle, model.entry)
    (name,) = (item.name for item in model.session.outputs)
    found = [model.session.infer(feeds)[name].copy() for feeds in inputs]
    assert min(rel_l2(first, second) for first, second in combinations(found, 2)) > 1e-2
    return found


def ask(model: Model, expected: list[np.ndarray], order: int) -> None:
    """Asks over and over, each thread in an order of its own, pipelined every other time."""
    inputs, _ = golden(model.bundle, model.entry)
    (name,) = (item.name for item in model.session.outputs)
    generator = np.random.default_rng(order)
    for round_ in range(ROUNDS):
        picked = generator.integers(len(inputs), size=model.session.in_flight)
        if round_ % 2:
            tickets = [model.session.submit(inputs[index]) for index in picked]
            found = [model.session.collect(ticket)[name] for ticket in tickets]
        else:
            found = [model.session.infer(inputs[index])[name] for index in picked]
        for index, answer in zip(picked, found, strict=True):
            # Not to the last bit: each context may have kernels of its own.
            distances = [rel_l2(item, answer) for item in expected]
            assert int(np.argmin(distances)) == index, distances
            assert distances[index] <= model.entry.golden.rel_l2, distances


@pytest.mark.parametrize("indices", [(0, 0), (0, 1)], ids=["one-model", "two-models"])
def test_two_sessions_in_threads(machine: Machine, indices: tuple[int, int]) -> None:
    first, second = (machine.load(index) for index in indices)
    with first, second, ThreadPoolExecutor(2) as pool:
        told = [(model, answers(model), number) for number, model in enumerate((first, second))]
        for done in [pool.submit(ask, *item) for item in told]:
            done.result(120)
        check(first)
        check(second)


def test_one_session_in_many_threads(machine: Machine) -> None:
    with machine.load(streams=2) as model, ThreadPoolExecutor(4) as pool:
        expected = answers(model)
        for done in [pool.submit(ask, model, expected, number) for number in range(4)]:
            done.result(120)


def test_sessions_are_opened_and_closed_beside_one_that_works(machine: Machine) -> None:
    with machine.load(0) as model, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(ask, model, answers(model), 0)
        for index in (1, 0, 1):
            with machine.load(index) as other:
                check(other)
        busy.result(120)
