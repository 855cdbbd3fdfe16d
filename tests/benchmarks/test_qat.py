"""What the QAT benchmark makes of what was measured: the case, the share that is recovered, the verdict, the table."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import qat
from benchmarks.accuracy_worker import divergences, fidelity
from benchmarks.qat_worker import PTQ, QAT, training_of
from benchmarks.record import RESULTS
from edgekit.compiler.shaping import QatStage
from edgekit.program import Record

IMAGES = 40


def case(kl: float, *, agreement: float = 0.97, drop: float = 0.0) -> dict[str, Any]:
    """A tool's record of two seeds in the accuracy benchmark."""
    return {
        "fidelity": [{"kl": kl - 0.001, "agreement": agreement}, {"kl": kl + 0.001, "agreement": agreement}],
        "drop": {"estimate": drop, "low": drop - 1, "high": drop + 1, "level": 0.95},
    }


def accuracy() -> dict[str, Any]:
    networks = {
        "digits": {"tools": {"edgekit-fast": case(0.004, drop=3.0), "nncf": case(0.09)}},
        "vit_small": {"tools": {"edgekit-fast": case(0.006, agreement=0.95), "edgekit-default": case(0.005)}},
    }
    return {"results": {"networks": networks}}


def test_the_worst_case_is_edgekits_own_and_the_farthest_from_float() -> None:
    # Not the one with the largest drop, and not the other tool's, which is farther.
    found = qat.worst_case(accuracy())
    assert (found["network"], found["recipe"]) == ("vit_small", "fast")
    assert found["kl"] == pytest.approx(0.006)
    assert found["agreement"] == pytest.approx(0.95)


def test_no_recorded_drop_in_top1_could_choose_the_case() -> None:
    # What the page says of top-1: not one interval lies above zero.
    recorded = json.loads((RESULTS / "accuracy.json").read_text(encoding="utf-8"))
    tools = [
        found
        for item in recorded["results"]["networks"].values()
        for tool, found in item["tools"].items()
        if tool.startswith("edgekit-")
    ]
    assert len(tools) == 12
    assert all(found["drop"]["low"] <= 0 for found in tools)


def seed(before: float, after: float, *, right: int = 30, trained: int = 30) -> dict[str, Any]:
    """What the worker answers for one seed; divergences differ from image to image, the mean is as given."""
    shape = np.linspace(0.5, 1.5, IMAGES)

    def side(kl: float, count: int) -> dict[str, Any]:
        return {
            "outcomes": "1" * count + "0" * (IMAGES - count),
            "same": "1" * (count + 5) + "0" * (IMAGES - count - 5),
            "kl": (kl * shape).tolist(),
            "layers": {"int8": 54},
            "training": None,
        }

    return {PTQ: side(before, right), QAT: {**side(after, trained), "training": {"chosen_epoch": 2}}}


def summary(*seeds: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {"case": qat.worst_case(accuracy()), **qat.summarize("1" * 32 + "0" * 8, seeds)}
    return {**results, "findings": qat.findings(results)}


def test_what_is_recovered_is_the_share_of_the_mean_divergence() -> None:
    # 0.008 before and 0.003 after, in the mean over the seeds; the mean of the seeds' shares would be another.
    found = summary(seed(0.010, 0.005), seed(0.006, 0.001))
    assert found["recovered"]["estimate"] == pytest.approx(1 - 0.003 / 0.008)
    assert found["recovered"]["low"] < found["recovered"]["estimate"] < found["recovered"]["high"]
    assert [item["recovered"] for item in found["seeds"]] == pytest.approx([0.5, 5 / 6])
    assert found["sides"][PTQ]["kl"] == pytest.approx(0.008)
    assert found["sides"][QAT]["agreement"] == pytest.approx(35 / IMAGES)
    assert found["sides"][QAT]["drop"]["estimate"] == pytest.approx(100 * 2 / IMAGES)
    assert found["findings"] == []
    assert "kl" not in json.dumps(found["seeds"][0]["training"])


@pytest.mark.parametrize(("after", "missed"), [(0.0049, False), (0.0051, True), (0.012, True)])
def test_less_than_half_is_missed(after: float, missed: bool) -> None:
    found = summary(seed(0.010, after), seed(0.010, after))["findings"]
    assert bool(found) is missed
    assert all("of the divergence is recovered, less than 50%" in text for text in found)


def test_answers_near_the_float_networks_are_not_enough_where_top1_falls() -> None:
    (found,) = summary(seed(0.010, 0.001, trained=20), seed(0.010, 0.001, trained=20))["findings"]
    assert found.startswith("top-1 falls by 25.00 [")
    assert summary(seed(0.010, 0.001, trained=29), seed(0.010, 0.001, trained=30))["findings"] == []


def test_the_table_says_what_was_measured() -> None:
    results = summary(seed(0.010, 0.006), seed(0.010, 0.004))
    settings = {"seeds": [3, 4], "training": {"epochs": 5}, "validation": False}
    text = qat.to_markdown({"results": {**results, "findings": ["too little"]}, "settings": settings})
    assert "| ViT, small, 40 images | top-1 |" in text
    assert "| torch, float32 | 80.00 % |" in text
    assert "| int8, recipe fast | 75.00 % | 5.00 [" in text
    assert "| the same, trained | 75.00 % | 5.00 [" in text
    assert "| 5.00 | 50.0 [" in text
    assert "| seed 3: before, after | 75.00 %, 75.00 % |  | 87.50 %, 87.50 % | 10.00, 6.00 | 40.0 % |" in text
    assert "recovered 40.0 to 60.0 %, standard deviation 14.1" in text
    assert "trained for 5 epochs" in text
    assert text.endswith("Bounds: MISSED: too little.")


def test_the_divergence_of_each_image_has_the_mean_that_the_accuracy_benchmark_tells() -> None:
    generator = np.random.default_rng(0)
    reference, logits = (generator.standard_normal((20, 10)).astype(np.float32) for _ in range(2))
    found = divergences(reference, logits)
    assert found.shape == (20,)
    assert (found > 0).all()
    assert found.mean() == pytest.approx(fidelity(reference, logits)["kl"])
    assert divergences(reference, reference + 3) == pytest.approx(np.zeros(20), abs=1e-6)  # probabilities are the same


def test_the_training_of_the_benchmark_is_a_stage() -> None:
    assert QatStage(**qat.TRAINING).epochs == qat.TRAINING["epochs"]


KEPT = ("before", "after", "chosen_epoch", "steps", "options")


def report_of(*records: Record) -> Any:
    """What of a compilation's report is read."""
    return SimpleNamespace(history={"float": (), "int8 1: x86-cpu": records})


def test_a_compilation_without_training_has_no_record_of_one() -> None:
    assert training_of(report_of()) is None
    record = Record(stage="qat", summary="trained", details={name: name for name in (*KEPT, "epochs")})
    assert training_of(report_of(Record(stage="fold", summary="folded"), record)) == {name: name for name in KEPT}
