from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks import calibration_time, networks
from benchmarks.engine_worker import count_layers, plan_calls
from benchmarks.keeping import kept
from benchmarks.noise import sqnr_db


def _run(medians: dict[str, float]) -> dict[str, Any]:
    return {
        "median_us": medians,
        "block_medians_us": {name: [value, 3 * value, 2 * value] for name, value in medians.items()},
        "stable": dict.fromkeys(medians, True),
    }


def _summary(ours: list[float], performance: float = 100.0, mixed: float = 110.0) -> dict[str, Any]:
    return networks.summarize_network(
        [_run({"edgekit": value, "nncf-performance": performance, "nncf-mixed": mixed}) for value in ours],
        ("nncf-performance", "nncf-mixed"),
    )


def _sides(ours: float, theirs: float) -> dict[str, Any]:
    layers = {"Convolution": {"fp32": 2, "int8": 3}}
    return {
        "edgekit": {"sqnr_db": ours, "median_sqnr_db": ours, "layers": layers},
        "float": {"sqnr_db": 99.0, "median_sqnr_db": 99.0, "layers": layers},
        "nncf-mixed": {"sqnr_db": theirs, "median_sqnr_db": theirs, "layers": layers},
        "nncf-performance": {"sqnr_db": theirs - 5, "median_sqnr_db": theirs - 5, "layers": layers},
    }


def test_nncf_is_its_fastest_variant_over_all_processes() -> None:
    runs = [
        _run({"edgekit": 100.0, "nncf-performance": 90.0, "nncf-mixed": 100.0}),
        _run({"edgekit": 100.0, "nncf-performance": 120.0, "nncf-mixed": 100.0}),
    ]
    summary = networks.summarize_network(runs, ("nncf-performance", "nncf-mixed"))
    assert summary["fastest"] == "nncf-mixed"
    assert summary["ratio"]["estimate"] == pytest.approx(1.0)


def test_an_engine_that_answers_wrongly_is_not_compared() -> None:
    sides = _sides(10.0, 9.0) | {"nncf-wrong": {"sqnr_db": -3.9, "median_sqnr_db": -3.9, "layers": {}}}
    assert networks.rivals(sides) == ["nncf-mixed", "nncf-performance"]
    runs = [_run({"edgekit": 100.0, "nncf-mixed": 100.0, "nncf-performance": 110.0, "nncf-wrong": 50.0})] * 2
    assert networks.summarize_network(runs, networks.rivals(sides))["fastest"] == "nncf-mixed"


def test_the_mean_is_over_networks_and_its_interval_over_processes() -> None:
    summary = networks.summarize_threads(
        {"a": _summary([90.0, 110.0]), "b": _summary([110.0, 90.0]), "c": _summary([20.0, 20.0])}
    )
    # In each process 90 and 110 are there once: the mean over networks does not differ from process to process.
    assert summary["mean"]["low"] == pytest.approx(summary["mean"]["high"])
    assert summary["mean"]["estimate"] == pytest.approx((0.9 * 1.1 * 0.2) ** (1 / 3))
    assert summary["best_network"] == "c"
    assert summary["mean_without_best"]["estimate"] == pytest.approx((0.9 * 1.1) ** (1 / 2))


def test_a_mean_that_one_network_carries_is_a_finding() -> None:
    slow = {name: _summary([104.0, 104.1]) for name in "abc"}
    summary = networks.summarize_threads({**slow, "best": _summary([20.0, 20.0])})
    built = {name: _sides(10.0, 9.0) for name in (*slow, "best")}
    (found,) = networks.findings(built, {"1": summary})
    assert found.startswith("1 threads: mean without the best 1.040")


def test_one_slow_network_is_a_finding() -> None:
    summary = networks.summarize_threads(
        {"a": _summary([80.0, 80.1]), "b": _summary([106.0, 106.1]), "c": _summary([80.0, 80.1])}
    )
    (found,) = networks.findings({name: _sides(1.0, 1.0) for name in "abc"}, {"2": summary})
    assert found.startswith("2 threads: b 1.060")


def test_noise_alone_is_no_finding_for_a_network() -> None:
    summary = networks.summarize_threads(
        {"a": _summary([80.0, 80.1]), "b": _summary([100.0, 112.0]), "c": _summary([80.0, 80.1])}
    )
    found = networks.findings({name: _sides(1.0, 1.0) for name in "abc"}, {"2": summary})
    assert not [line for line in found if " b " in line]


def test_sqnr_is_held_against_the_best_variant() -> None:
    assert networks.noise_margin(_sides(10.0, 11.5)) == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("margins", "count"), [([-0.9] + [1.0] * 9, 0), ([-1.1] + [1.0] * 9, 1), ([-0.1, -0.1] + [1.0] * 8, 1)]
)
def test_sqnr_on_nine_of_ten_and_nowhere_one_decibel_below(margins: list[float], count: int) -> None:
    built = {str(index): _sides(10.0 + margin, 10.0) for index, margin in enumerate(margins)}
    assert len(networks.findings(built, {})) == count


def test_signal_to_noise() -> None:
    reference = np.array([3.0, -4.0], dtype=np.float32)
    assert sqnr_db(reference, reference + np.array([0.3, 0.4])) == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(reference, reference) == math.inf


def test_layers_are_counted_by_what_ran() -> None:
    ran = [("Convolution", "int8"), ("Convolution", "fp32"), ("FullyConnected", "int8"), ("Eltwise", "fp32")]
    layers = count_layers(ran)
    assert layers == {"Convolution": {"fp32": 1, "int8": 1}, "FullyConnected": {"int8": 1}}
    assert networks.int8_share(layers) == "2 / 3"


@pytest.mark.parametrize("slowest", [1e-4, 3e-3, 0.02, 0.2, 2.0])
def test_calls_fit_the_time(slowest: float) -> None:
    blocks, calls = plan_calls({"a": slowest, "b": slowest / 2}, seconds=1.5, blocks=10)
    assert blocks >= 4
    assert calls >= 2
    smallest = 16 * slowest  # four blocks of two visits of two calls
    assert 2 * blocks * calls * slowest == pytest.approx(max(1.5, smallest), rel=0.3)


def test_finished_parts_are_kept_until_what_they_depend_on_changes(tmp_path: Path) -> None:
    path, made = tmp_path / "a" / "part.json", []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"number": len(made)}

    assert kept(path, "one", make) == {"number": 1}
    assert kept(path, "one", make) == {"number": 1}
    assert kept(path, "two", make) == {"number": 2}


def test_a_table_of_all_networks() -> None:
    names = ("a", "b")
    built = {name: _sides(10.0, 9.0) for name in names}
    threads = {"1": networks.summarize_threads({name: _summary([90.0, 91.0]) for name in names})}
    result = {"settings": {"processes": 2}, "results": {"built": built, "threads": threads, "findings": []}}
    text = networks.to_markdown(result)
    assert "| a | 0.905 [" in text
    assert "| 10.0 | 9.0 | 3 / 5 | 3 / 5 |" in text
    assert text.endswith("kept.")


def test_calibration_is_held_against_time_and_growth() -> None:
    mib = 2**20
    quick = {"seconds": {"edgekit": [1.0, 2.0, 9.0], "nncf": [3.0, 2.5, 1.0]}, "peak_rss_bytes": {}}
    assert calibration_time.findings({"a": quick}) == []
    slow = {
        "seconds": {"edgekit": [3.0], "nncf": [2.0]},
        "peak_rss_bytes": {"edgekit": {"100": [mib], "2000": [40 * mib]}, "nncf": {"100": [mib], "2000": [99 * mib]}},
    }
    assert calibration_time.findings({"a": slow}) == ["a: 3.0 s, NNCF 2.0 s", "a: memory of edgekit grows by 39 MiB"]
