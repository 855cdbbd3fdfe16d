"""What the benchmarks of pruned networks and of students make of what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import recovery, student
from benchmarks.shaping_worker import read_stage
from edgekit.compiler.shaping import DistillStage, PruneStage
from edgekit.errors import ConfigError


def network(value: float, *, int8: float | None = None, share: float = 1.0, time: float = 0.8) -> dict[str, Any]:
    """What the worker answers; drops are against a checkpoint of 0.83."""
    interval = {"low": -1.0, "high": 1.0, "level": 0.95}
    quantized = value if int8 is None else int8
    return {
        "checkpoint": 0.83,
        "float": {"value": value, "drop": {"estimate": 83 - 100 * value, **interval}},
        "int8": {"value": quantized, "drop": {"estimate": 83 - 100 * quantized, **interval}},
        "macs": share * 125e6,
        "latency": {"ratio": {"estimate": time, **interval}},
        "seconds": 600.0,
    }


def measured() -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], dict[str, Any]]:
    networks = {
        recovery.UNPRUNED: network(0.855),
        recovery.HALF: network(0.852, share=0.5),
        recovery.THIRD: network(0.835, share=0.33),
        recovery.BLOCKS: network(0.851, share=0.55),
    }
    seeds = {
        "uniform": [network(0.82), network(0.83), network(0.81)],
        "latency": [network(0.84), network(0.84), network(0.84)],
    }
    names = [*networks, *(f"{kind} {seed}" for kind in seeds for seed in range(3))]
    ratios = {
        str(batch): {name: {"estimate": 0.6, "low": 0.58, "high": 0.62} for name in names} for batch in recovery.BATCHES
    }
    return networks, seeds, ratios


def test_nothing_is_missed_where_all_bounds_hold() -> None:
    assert recovery.findings(*measured()) == []


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        (recovery.HALF, {"value": 0.8499}, "half: 84.99 %, more than 0.5 below 85.50 %"),
        (recovery.BLOCKS, {"value": 0.84}, "blocks: 84.00 %, more than 0.5 below 85.50 %"),
        (recovery.THIRD, {"value": 0.829}, "third: 82.90 %, below the checkpoint's 83.00 %"),
        (recovery.HALF, {"value": 0.852, "int8": 0.848}, "half: int8 loses 0.40 points, more than 0.3"),
    ],
)
def test_a_network_that_lost_too_much(name: str, changed: dict[str, float], expected: str) -> None:
    networks, seeds, ratios = measured()
    networks[name] = network(**changed)
    assert recovery.findings(networks, seeds, ratios) == [expected]


@pytest.mark.parametrize(("name", "batch", "bound"), [("half", "1", 0.9), ("half", "16", 0.75), ("blocks", "1", 0.65)])
def test_an_engine_that_is_too_slow(name: str, batch: str, bound: float) -> None:
    networks, seeds, ratios = measured()
    ratios[batch][name]["estimate"] = bound + 0.01
    (found,) = recovery.findings(networks, seeds, ratios)
    assert found == f"{name}, batch {batch}: {bound + 0.01:.3f} of NNCF's time, more than {bound:.2f}"


def test_the_clock_must_be_better_with_every_seed() -> None:
    networks, seeds, ratios = measured()
    seeds["latency"][1] = network(0.83)
    assert recovery.gains(seeds) == pytest.approx([2.0, 0.0, 3.0])
    assert recovery.findings(networks, seeds, ratios) == ["chosen by the clock is not better with seed 1"]


def test_a_training_that_takes_too_long() -> None:
    networks, seeds, ratios = measured()
    networks[recovery.UNPRUNED]["seconds"] = 2400.0
    assert recovery.findings(networks, seeds, ratios) == ["unpruned: 40 minutes"]


def test_the_page_says_what_was_measured() -> None:
    networks, seeds, ratios = measured()
    results = {"networks": networks, "seeds": seeds, "ratios": ratios, "findings": ["half: too slow"]}
    settings = {"epochs": 8, "seed_epochs": 3, "threads": 2, "data_images": 20000, "test_images": 5000}
    text = recovery.to_markdown({"results": results, "settings": settings})
    assert "| half | 0.500 | 85.20 % | +2.20 [-1.00, +1.00] | 85.20 % | 0.600 [0.580, 0.620] |" in text
    assert "| seed 2 | 81.00 % | 84.00 % | 0.800 | 0.800 | 1.000 |" in text
    assert "+2.00 points in the mean over the seeds, standard deviation 1.00" in text
    assert text.endswith("Bounds: MISSED: half: too slow.")


def test_a_student_must_be_better_with_every_seed() -> None:
    sides = {"distilled": [network(0.7), network(0.71)], "labels": [network(0.69), network(0.72)]}
    assert student.gains(sides) == pytest.approx([1.0, -1.0])
    assert student.findings(sides) == ["with seed 1 the distilled student is 1.00 points below the other one"]
    results = {"sides": sides, "teacher_macs": 125e6, "findings": student.findings(sides)}
    settings = {"epochs": 6, "data_images": 20000, "test_images": 5000}
    text = student.to_markdown({"results": results, "settings": settings})
    assert "| seed 0 | 70.00 % | 69.00 % | +1.00 | 70.00 % | 69.00 % |" in text
    assert "| mean, standard deviation | 70.50 %, 0.71 | 70.50 %, 2.12 | +0.00, 1.41 |  |  |" in text
    assert "MISSED: with seed 1" in text


def test_a_stage_is_read_as_a_recipe_has_it() -> None:
    assert read_stage({"do": "prune", "latency": 0.8}) == PruneStage(latency=0.8)
    assert read_stage({**recovery.TRAINING, "epochs": 2}) == DistillStage(
        epochs=2, batch_size=128, learning_rate=0.02, temperature=4.0, alpha=0.5, augmentation="cifar"
    )
    with pytest.raises(ConfigError, match="either 'keep' or 'latency'"):
        read_stage({"do": "prune"})


def test_the_stages_of_the_benchmarks_are_stages() -> None:
    prunings = [item for item in recovery.PRUNINGS.values() if item is not None]
    assert all(isinstance(read_stage(item), PruneStage) for item in (*prunings, recovery.UNIFORM))
    for side in student.SIDES.values():
        assert isinstance(read_stage({**student.TRAINING, **side, "epochs": 1}), DistillStage)
