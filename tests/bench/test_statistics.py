"""Statistics: known values, and coverage of the intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.bench.statistics import median_ratio_interval, paired_interval, summarize
from edgekit.errors import InternalError


def test_summary_of_known_samples() -> None:
    summary = summarize(np.arange(101, dtype=np.int64)[::-1] * 1_000_000)
    assert summary.samples == 101
    assert (summary.min_ms, summary.mean_ms) == (0.0, 50.0)
    assert (summary.p50_ms, summary.p90_ms, summary.p99_ms) == (50.0, 90.0, 99.0)
    assert summarize(np.asarray([10, 20], dtype=np.int64)).p50_ms == pytest.approx(15e-6)
    with pytest.raises(InternalError):
        summarize(np.empty(0, dtype=np.int64))


def latencies(generator: np.random.Generator, blocks: int, drift: np.ndarray, scale: float = 1.0) -> np.ndarray:  # type: ignore[type-arg]
    """Simulated blocks: shared drift, noise within and between blocks, bursts over whole blocks, single hiccups."""
    times = 2e5 * scale * drift * np.exp(generator.normal(0, 0.03, (blocks, 10)))
    times *= np.exp(generator.normal(0, 0.02, (blocks, 1)))
    times *= np.where(generator.random((blocks, 1)) < 0.05, 1 + 0.2 * generator.pareto(2, (blocks, 1)), 1)
    times += np.where(generator.random((blocks, 10)) < 0.05, generator.exponential(2e5, (blocks, 10)), 0)
    return times.astype(np.int64)


@pytest.mark.parametrize("blocks", [12, 40])
def test_the_interval_of_a_against_a_covers_one(blocks: int) -> None:
    generator = np.random.default_rng(0)
    rounds = 500
    covered = 0
    for _ in range(rounds):
        drift = 1 + 0.1 * np.cumsum(generator.normal(0, 0.05, blocks))[:, None]
        interval = median_ratio_interval(latencies(generator, blocks, drift), latencies(generator, blocks, drift))
        assert interval.low <= interval.estimate <= interval.high
        covered += interval.contains(1.0)
    # Three standard errors below 95 %; above, the exact coverage of the discrete interval is at most 98.9 %.
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / rounds) <= covered / rounds <= 0.998


def test_a_bootstrap_of_the_mean_covers_less_often_and_saves_little_width() -> None:
    """Why ``docs/decisions/0005-order-statistics.md`` decides as it does."""
    blocks, rounds = 12, 500
    generator = np.random.default_rng(0)
    covered = {"order": 0, "bootstrap": 0}
    widths: dict[str, list[float]] = {"order": [], "median": []}
    for _ in range(rounds):
        drift = 1 + 0.1 * np.cumsum(generator.normal(0, 0.05, blocks))[:, None]
        a, b = latencies(generator, blocks, drift), latencies(generator, blocks, drift)
        interval = median_ratio_interval(a, b)
        logs = np.log(np.median(a, axis=1)) - np.log(np.median(b, axis=1))
        drawn = logs[generator.integers(0, blocks, (1000, blocks))]
        low, high = np.percentile(drawn.mean(axis=1), (2.5, 97.5))
        covered["order"] += interval.contains(1.0)
        covered["bootstrap"] += low <= 0 <= high
        widths["order"].append(math.log(interval.high / interval.low))
        widths["median"].append(float(np.ptp(np.percentile(np.median(drawn, axis=1), (2.5, 97.5)))))
    # Three standard errors of a true 95 %.
    slack = 3 * math.sqrt(0.95 * 0.05 / rounds)
    assert covered["bootstrap"] / rounds < 0.95 - slack < covered["order"] / rounds
    assert 1 < sum(widths["order"]) / sum(widths["median"]) < 1.25


def test_a_real_difference_is_found_and_sized() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        drift = 1 + 0.1 * np.cumsum(generator.normal(0, 0.05, 40))[:, None]
        interval = median_ratio_interval(latencies(generator, 40, drift, 0.8), latencies(generator, 40, drift))
        covered += interval.contains(0.8)
        assert interval.high < 1
    assert covered >= 90


def test_too_few_or_unequal_blocks_are_refused() -> None:
    samples = np.ones((6, 4), dtype=np.int64)
    assert median_ratio_interval(samples, samples).estimate == 1.0
    with pytest.raises(InternalError, match="5 blocks are too few"):
        median_ratio_interval(samples[:5], samples[:5])
    with pytest.raises(InternalError, match="same blocks"):
        median_ratio_interval(samples, samples[:5])


def test_the_outer_ranks_are_those_of_the_sign_test_tables() -> None:
    # 20 values: the 6th smallest to the 15th smallest cover the median with 95.9 % (order-statistic tables).
    rows = np.exp(np.arange(20) / 10.0) * 1e6
    interval = median_ratio_interval(np.repeat(rows[:, None], 3, axis=1).astype(np.int64), np.full((20, 3), 1_000_000))
    assert interval.low == pytest.approx(math.exp(0.5), rel=1e-5)
    assert interval.high == pytest.approx(math.exp(1.4), rel=1e-5)


def test_paired_interval_of_a_known_table() -> None:
    # 10 images that only the first gets right, 4 that only the second does, of 100; computed by hand from the source.
    first = np.asarray([1] * 10 + [0] * 4 + [1] * 86)
    second = np.asarray([0] * 10 + [1] * 4 + [1] * 86)
    interval = paired_interval(first, second)
    assert interval.estimate == pytest.approx(0.06)
    spread = math.sqrt(15 - 36 / 102) / 102
    assert interval.low == pytest.approx(6 / 102 - 1.959964 * spread, rel=1e-6)
    assert interval.high == pytest.approx(6 / 102 + 1.959964 * spread, rel=1e-6)


def test_paired_interval_covers_the_true_difference() -> None:
    generator = np.random.default_rng(2)
    rounds, covered = 1000, 0
    for _ in range(rounds):
        draw = generator.random(500)
        # Cells: both right 0.90, only the first 0.03, only the second 0.01: the true difference is 0.02.
        first, second = draw < 0.93, (draw < 0.90) | ((draw >= 0.93) & (draw < 0.94))
        covered += paired_interval(first, second).contains(0.02)
    assert 0.93 <= covered / rounds <= 0.98


def test_paired_interval_without_disagreement_still_has_width() -> None:
    same = np.ones(1000, dtype=bool)
    interval = paired_interval(same, same)
    assert interval.estimate == 0.0
    assert interval.low < 0 < interval.high < 0.005


def test_paired_interval_refuses_what_is_no_pair() -> None:
    for first, second in [([1, 0], [1]), ([], []), ([0.5], [1.0])]:
        with pytest.raises(InternalError):
            paired_interval(first, second)
