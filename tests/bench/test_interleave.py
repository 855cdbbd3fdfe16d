"""Interleaving and the single-stream loop: order, counts, and what is timed."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest

from edgekit.bench.interleave import interleave
from edgekit.bench.single_stream import Budget, Pipeline, harness_overhead_ns, measure, measure_stages
from edgekit.errors import InternalError


def spin(count: int) -> int:
    return sum(range(count))


def test_every_block_visits_each_side_twice_in_mirrored_order() -> None:
    log: list[str] = []
    blocks: list[int] = []
    samples = interleave(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")},
        blocks=20,
        per_visit=3,
        seed=0,
        settle=1,
        on_block=lambda: blocks.append(len(log)),
    )
    assert {name: values.shape for name, values in samples.items()} == {"a": (20, 6), "b": (20, 6)}
    assert all((values > 0).all() for values in samples.values())
    assert blocks == [16 * (number + 1) for number in range(20)]
    orders = Counter("".join(log[start : start + 16 : 4]) for start in range(0, len(log), 16))
    assert set(orders) == {"abba", "baab"}
    assert min(orders.values()) >= 3


def test_the_order_depends_on_the_seed_alone() -> None:
    def order(seed: int) -> str:
        log: list[str] = []
        interleave({n: lambda n=n: log.append(n) for n in "abc"}, blocks=8, per_visit=1, seed=seed, settle=0)  # type: ignore[misc]
        return "".join(log)

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_the_slower_side_is_seen_to_be_slower() -> None:
    samples = interleave({"fast": lambda: spin(100), "slow": lambda: spin(20_000)}, blocks=6, per_visit=3, seed=0)
    assert np.median(samples["slow"]) > 5 * np.median(samples["fast"])


def test_the_collector_rests_while_timing_and_is_left_as_found() -> None:
    seen: list[bool] = []
    interleave({"a": lambda: seen.append(gc.isenabled())}, blocks=1, per_visit=1, seed=0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure(lambda number: number // 0, Budget(min_s=0.0, min_calls=1, max_s=1.0))
    assert gc.isenabled()
    gc.disable()
    try:
        measure(lambda number: number, Budget(min_s=0.0, min_calls=1, max_s=1.0))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_budget_bounds_the_calls() -> None:
    numbers: list[int] = []
    advanced: list[int] = []
    times = measure(numbers.append, Budget(min_s=0.0, min_calls=7, max_s=60.0), on_call=lambda: advanced.append(1))
    assert numbers == list(range(7))
    assert len(advanced) == len(times) == 7
    assert measure(lambda _: spin(1000), Budget(min_s=0.0, min_calls=10**9, max_s=0.0)).size == 1
    by_time = measure(lambda _: spin(1000), Budget(min_s=0.02, min_calls=1, max_s=60.0))
    assert by_time.size > 10


def test_stages_are_timed_apart_and_frames_go_round() -> None:
    seen: list[tuple[str, int]] = []

    def engine(feeds: int) -> int:
        spin(30_000)
        return feeds * 10

    def preprocess(frame: int) -> int:
        return frame + 1

    pipeline = Pipeline(
        preprocess=preprocess, engine=engine, postprocess=lambda outputs, frame: seen.append((str(outputs), frame))
    )
    stages = measure_stages(pipeline, [5, 6], Budget(min_s=0.0, min_calls=4, max_s=60.0))
    assert seen == [("60", 5), ("70", 6), ("60", 5), ("70", 6)]
    assert stages.engine_ns.shape == (4,)
    assert np.median(stages.engine_ns) > 5 * np.median(stages.preprocess_ns)
    np.testing.assert_array_equal(stages.total_ns, stages.preprocess_ns + stages.engine_ns + stages.postprocess_ns)


def test_the_harness_adds_little_to_a_sample() -> None:
    # Two clock readings and an empty call, against the microseconds of a very fast engine.
    engine = np.median(measure(lambda _: spin(2_000), Budget(min_s=0.0, min_calls=200, max_s=60.0)))
    assert 0 < harness_overhead_ns(500) < engine / 3


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InternalError):
        interleave({}, blocks=1, per_visit=1, seed=0)
    with pytest.raises(InternalError):
        interleave({"a": lambda: None}, blocks=1, per_visit=0, seed=0)
    with pytest.raises(InternalError):
        Budget(min_s=2.0, min_calls=1, max_s=1.0)
