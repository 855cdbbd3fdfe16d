from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.intervals import (
    mean_drop_interval,
    process_mean_interval,
    process_ratio_interval,
    recovered_interval,
)


def test_the_mean_interval_is_students() -> None:
    # 2.5 +- t(0.975, 3) * 1.2909944 / 2, with t = 3.182446 from any table.
    interval = process_mean_interval([1.0, 2.0, 3.0, 4.0])
    assert interval.estimate == pytest.approx(2.5)
    assert interval.high - interval.estimate == pytest.approx(3.182446 * 1.2909944 / 2, rel=1e-5)
    assert interval.estimate - interval.low == pytest.approx(interval.high - interval.estimate)


def test_ratios_are_averaged_as_logarithms() -> None:
    interval = process_ratio_interval([0.5, 2.0])
    assert interval.estimate == pytest.approx(1.0)
    assert interval.low == pytest.approx(1 / interval.high)


def test_the_ratio_interval_turns_round_with_its_sides() -> None:
    ratios = np.array([0.94, 0.97, 0.96, 0.99, 0.95])
    there, back = process_ratio_interval(ratios), process_ratio_interval(1 / ratios)
    assert there.estimate == pytest.approx(1 / back.estimate)
    assert there.low == pytest.approx(1 / back.high)


def test_the_ratio_interval_covers() -> None:
    generator = np.random.default_rng(0)
    held = [
        process_ratio_interval(np.exp(math.log(0.97) + generator.normal(0, 0.01, 5))).contains(0.97)
        for _ in range(1000)
    ]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("ratios", [[], [0.9], [0.9, 0.0], [[0.9, 0.8]]])
def test_ratios_that_give_no_interval(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="at least two positive ratios"):
        process_ratio_interval(ratios)


def test_the_mean_drop_is_the_mean_of_the_drops() -> None:
    generator = np.random.default_rng(1)
    reference = generator.random(500) < 0.8
    seeds = np.stack([np.where(generator.random(500) < 0.05, ~reference, reference) for _ in range(3)])
    interval = mean_drop_interval(reference, seeds, seed=0)
    assert interval.estimate == pytest.approx(np.mean([reference.mean() - row.mean() for row in seeds]))
    assert interval.low < interval.estimate < interval.high
    assert mean_drop_interval(reference, seeds, seed=0) == interval


def test_the_mean_drop_interval_has_the_width_of_the_normal_one() -> None:
    generator = np.random.default_rng(2)
    reference = generator.random(4000) < 0.8
    seeds = np.stack([np.where(generator.random(4000) < 0.05, ~reference, reference) for _ in range(3)])
    differences = reference - seeds.mean(axis=0)
    reach = 1.96 * differences.std() / math.sqrt(differences.size)
    interval = mean_drop_interval(reference, seeds, seed=0, across_seeds=False)
    assert interval.high - interval.low == pytest.approx(2 * reach, rel=0.05)


def test_the_interval_across_seeds_covers_where_seeds_differ() -> None:
    generator = np.random.default_rng(3)
    held, narrow = 0, 0
    for _ in range(400):
        # Seeds that differ in the mean itself: the interval of these very seeds is blind to that.
        lean = 0.02 * generator.standard_normal((5, 1))
        worse = generator.random((5, 300)) < 0.08 + lean.clip(-0.05, 0.05)
        better = generator.random((5, 300)) < 0.06
        differences = worse.astype(float) - better
        held += mean_drop_interval(differences, np.zeros((5, 300)), seed=0, resamples=500).contains(0.02)
        narrow += mean_drop_interval(
            differences, np.zeros((5, 300)), seed=0, across_seeds=False, resamples=500
        ).contains(0.02)
    assert held / 400 >= 0.93
    assert narrow / 400 < 0.9


def test_one_seed_says_nothing_of_others() -> None:
    generator = np.random.default_rng(4)
    reference = generator.random(500) < 0.8
    candidate = np.where(generator.random(500) < 0.05, ~reference, reference)[None]
    across, within = (mean_drop_interval(reference, candidate, seed=0, across_seeds=flag) for flag in (True, False))
    assert across == within


def test_a_reference_may_have_its_own_seeds() -> None:
    rows = np.array([[1, 0, 1, 1], [1, 1, 0, 1]])
    interval = mean_drop_interval(rows, rows, seed=0)
    assert (interval.low, interval.estimate, interval.high) == (0.0, 0.0, 0.0)


def test_equal_answers_drop_nothing() -> None:
    reference = np.array([1, 0, 1, 1])
    interval = mean_drop_interval(reference, [reference, reference], seed=0)
    assert (interval.low, interval.estimate, interval.high) == (0.0, 0.0, 0.0)


def test_a_constant_drop_has_no_width() -> None:
    interval = mean_drop_interval(np.ones(100), np.zeros((2, 100)), seed=0)
    assert (interval.low, interval.estimate, interval.high) == (1.0, 1.0, 1.0)


def test_outcomes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="shapes"):
        mean_drop_interval([1, 0], [[1, 0, 1]], seed=0)


def test_the_recovered_share_is_of_the_mean() -> None:
    before = np.array([[4.0, 0.0, 2.0], [2.0, 2.0, 2.0]])
    interval = recovered_interval(before, before / 4, seed=0)
    # The same share of every image, so that no draw can move it.
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((0.75, 0.75, 0.75))
    assert recovered_interval([[3.0, 1.0]], [[1.0, 1.0]], seed=0).estimate == pytest.approx(0.5)
    assert recovered_interval([[1.0]], [[2.0]], seed=0).estimate == pytest.approx(-1.0)


def test_the_recovered_interval_covers() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        before = generator.exponential(1.0, (3, 400))
        after = before * generator.uniform(0.2, 0.6, (3, 400))
        held += recovered_interval(before, after, seed=0, resamples=300).contains(0.6)
    assert held / 200 >= 0.9


@pytest.mark.parametrize(("before", "after"), [([[1.0, 2.0]], [[1.0]]), ([1.0], [1.0]), ([[0.0]], [[0.0]])])
def test_losses_that_give_no_share(before: list[Any], after: list[Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        recovered_interval(before, after, seed=0)
