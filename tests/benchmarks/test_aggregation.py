from __future__ import annotations

from typing import Any

import pytest

from benchmarks.calibration_time import growth_mib
from benchmarks.nncf_latency import (
    AGAIN,
    FLOAT,
    OURS,
    summarize_runs,
    verdict,
)
from benchmarks.sides import block_ratio, opening_order, process_ratios

_MEDIANS = {
    OURS: 100.0,
    AGAIN: 100.0,
    FLOAT: 300.0,
    "nncf-performance": 110.0,
    "nncf-performance-uint8": 125.0,
    "nncf-mixed": 104.0,
    "nncf-mixed-uint8": 130.0,
}


def _run(medians: dict[str, float]) -> dict[str, Any]:
    return {
        "median_us": medians,
        "block_medians_us": {name: [value, 2 * value, 3 * value] for name, value in medians.items()},
        "stable": dict.fromkeys(medians, True),
        "facts": {name: {"convolutions": {"u8": 3}} for name in medians},
    }


def test_a_ratio_is_taken_block_by_block() -> None:
    # The machine was ten times slower in the last block: the ratio does not notice.
    assert block_ratio([90.0, 95.0, 900.0], [100.0, 100.0, 1000.0]) == pytest.approx(0.9)


def test_the_faster_rival_counts_in_each_process() -> None:
    runs = [_run({**_MEDIANS, "nncf-mixed": 120.0}), _run(_MEDIANS)]
    assert process_ratios(runs, OURS, ("nncf-performance", "nncf-mixed")) == pytest.approx([100 / 110, 100 / 104])


def test_processes_are_put_together() -> None:
    runs = [_run({**_MEDIANS, OURS: ours}) for ours in (99.0, 100.0, 101.0)]
    summary = summarize_runs(runs)
    assert summary["time_us"][OURS]["estimate"] == pytest.approx(100.0)
    assert summary["ratio"]["nncf"]["estimate"] == pytest.approx(100 / 104, rel=1e-3)
    assert summary["ratio"]["nncf, uint8 in"]["estimate"] == pytest.approx(100 / 125, rel=1e-3)
    assert summary["ratio"]["nncf-performance"]["estimate"] == pytest.approx(100 / 110, rel=1e-3)
    assert summary["ratio"][FLOAT]["estimate"] == pytest.approx(1 / 3, rel=1e-3)
    low, high = summary["ratio"][AGAIN]["low"], summary["ratio"][AGAIN]["high"]
    assert low < 1 < high


def test_every_side_is_opened_before_every_other_equally_often() -> None:
    names = list(_MEDIANS)
    orders = [opening_order(names, process) for process in range(10)]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert len({tuple(order) for order in orders}) > 2
    for first in names:
        for second in names:
            if first != second:
                assert sum(order.index(first) < order.index(second) for order in orders) == 5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.95, 0.98, "kept"), (0.99, 1.03, "kept"), (1.001, 1.02, "MISSED"), (0.5, 2.0, "inconclusive")],
)
def test_noise_is_no_proof(low: float, high: float, expected: str) -> None:
    assert verdict([{"low": 0.95, "high": 0.97}, {"low": low, "high": high}]) == expected


def test_growth_is_from_the_fewest_to_the_most_images() -> None:
    mib = 2**20
    peaks = {"100": [400 * mib, 410 * mib, 402 * mib], "1000": [900 * mib], "2000": [412 * mib]}
    assert growth_mib(peaks) == pytest.approx(10.0)
