from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.models.raw_frame import MobileNetV2, ResNet18, SmallOnLarge, settled
from benchmarks.pixels import AGAIN, NORMALISED, RAW, summarize, to_markdown, verdict


def run(raw: float, normalised: float) -> dict[str, Any]:
    medians = {RAW: raw, NORMALISED: normalised, AGAIN: raw}
    return {"median_us": medians, "block_medians_us": {name: [value] * 4 for name, value in medians.items()}}


def network(ratios: tuple[float, float], sqnr: tuple[float, float]) -> dict[str, Any]:
    sides = {
        name: {"sqnr_db": value, "before_first_convolution": ["Reorder"]}
        for name, value in zip((RAW, NORMALISED), sqnr, strict=True)
    }
    return {"sides": sides, "threads": {"1": summarize([run(100 * ratio, 100) for ratio in ratios])}}


def test_a_ratio_below_one_is_time_saved() -> None:
    summary = summarize([run(50, 100), run(51, 100)])
    assert summary["ratio"]["estimate"] == pytest.approx(0.505, abs=1e-3)
    assert summary["again"]["estimate"] == 1.0


def test_a_network_that_is_surely_slower_or_noisier_misses_the_bound() -> None:
    good, slow, noisy = network((0.5, 0.51), (40, 40.4)), network((1.1, 1.11), (40, 40)), network((0.5, 0.5), (40, 41))
    assert verdict({"good": good}) == "kept"
    assert verdict({"good": good, "a": slow, "b": noisy}) == "MISSED by a (time), b (SQNR)"


def test_the_table_names_both_sides_and_what_ran() -> None:
    results = {"networks": {"small": network((0.5, 0.51), (40, 39))}, "verdict": "kept"}
    text = to_markdown({"results": results, "settings": {"threads": [1], "processes": 2}})
    assert "| small | 100 | 50 | 0.505 [" in text
    assert "small: Reorder became Reorder" in text


@pytest.mark.parametrize(("build", "parameters"), [(ResNet18, 11_689_512), (MobileNetV2, 3_504_872)])
def test_the_networks_have_the_size_of_the_well_known_ones(build: type[nn.Module], parameters: int) -> None:
    # Counts of torchvision's resnet18 and mobilenet_v2.
    assert sum(item.numel() for item in build().parameters()) == parameters


def test_batch_norms_are_settled_and_the_same_again() -> None:
    class Small(SmallOnLarge):
        size = (64, 64)

    first, second = (settled(Small, seed=3) for _ in range(2))
    assert not first.training
    norms = [item for item in first.modules() if isinstance(item, nn.BatchNorm2d)]
    assert all(item.running_mean is not None and float(item.running_mean.abs().max()) > 0 for item in norms)
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
