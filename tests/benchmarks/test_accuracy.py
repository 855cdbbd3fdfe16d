from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import gather, jobs, parse, to_markdown
from benchmarks.accuracy_worker import fidelity, outcomes
from benchmarks.trained import NETWORKS
from benchmarks.verdicts import conditions, kept, summarize_network
from edgekit.data import Sample
from edgekit.evaluate import ReadImage

IMAGES = 200


def right(count: int, *, first: int = 0) -> np.ndarray:
    """Outcomes of which ``count`` are right, from image ``first`` on."""
    found = np.zeros(IMAGES, dtype=np.int8)
    found[first : first + count] = 1
    return found


def summary(ours: int, peer: int = 170, *, first: int = 0) -> dict[str, Any]:
    tools = {
        "edgekit-default": {0: right(ours, first=first), 1: right(ours, first=first)},
        "nncf": {0: right(peer - 20), 1: right(peer - 20)},
        "onnxruntime": {0: right(peer), 1: right(peer)},
    }
    fidelity = [{"agreement": 0.97, "kl": 0.004}, {"agreement": 0.99, "kl": 0.002}]
    facts = {tool: {"layers": {"int8": 3, "fp32": 1}, "fidelity": fidelity} for tool in tools}
    return summarize_network(right(180), tools, facts=facts)


def test_drops_are_in_points_and_averaged_over_the_seeds() -> None:
    tools = {"edgekit-fast": {3: right(178), 4: right(174)}}
    found = summarize_network(right(180), tools, facts={"edgekit-fast": {"layers": {}}})
    tool = found["tools"]["edgekit-fast"]
    assert found["float"]["top1"] == pytest.approx(0.9)
    assert tool["top1"] == pytest.approx(0.88)
    assert tool["drop"]["estimate"] == pytest.approx(2.0)
    assert tool["drop"]["low"] < 2.0 < tool["drop"]["high"]
    assert [(item["seed"], round(item["drop"]["estimate"], 6)) for item in tool["seeds"]] == [(3, 1.0), (4, 3.0)]
    assert "peer_minus_edgekit" not in found


def test_the_best_peer_is_the_one_compared() -> None:
    found = summary(166)
    assert found["best_peer"] == "onnxruntime"
    assert set(found["peer_minus_edgekit"]) == {"edgekit-default"}
    assert found["peer_minus_edgekit"]["edgekit-default"]["estimate"] == pytest.approx(2.0)


def test_the_comparison_is_paired() -> None:
    # Equal accuracies, once on the same images and once on others: only the pairs tell them apart.
    same, other = summary(170), summary(170, first=30)
    for found, width in ((same, 0.0), (other, 5.0)):
        interval = found["peer_minus_edgekit"]["edgekit-default"]
        assert interval["estimate"] == pytest.approx(0.0)
        assert interval["high"] - interval["low"] >= width
    assert same["peer_minus_edgekit"]["edgekit-default"]["high"] == pytest.approx(0.0)


@pytest.mark.parametrize(("ours", "expected"), [(172, True), (170, True), (169, True), (160, False)])
def test_worse_than_the_best_peer_means_beyond_the_interval(ours: int, expected: bool) -> None:
    # One image fewer of 200 is within the interval, ten are not.
    (found,) = [item for item in conditions({"a": summary(ours)}) if item["what"].startswith("a:")]
    assert found["kept"] is expected


def test_the_drop_is_averaged_over_the_networks() -> None:
    # Drops of 0.5 and 0.0 points: their mean is within 0.3, the first alone is not.
    both = conditions({"a": summary(179), "b": summary(180)})
    assert both[0]["value"] == pytest.approx(0.25)
    assert both[0]["kept"] is True
    assert conditions({"a": summary(179)})[0]["kept"] is False


def test_what_was_not_measured_is_neither_kept_nor_missed() -> None:
    found = conditions({"a": summary(180)})
    accurate = next(item for item in found if "accurate" in item["what"])
    assert accurate["kept"] is None
    assert kept(found)
    assert not kept([*found, {"kept": False}])


def test_the_float_network_runs_once_and_the_tools_once_a_seed() -> None:
    planned = jobs(["a", "b"], ["nncf"], [7, 8])
    assert [(job["network"], job["seed"], job["tools"]) for job in planned] == [
        ("a", None, ["float"]),
        ("b", None, ["float"]),
        ("a", 7, ["nncf"]),
        ("a", 8, ["nncf"]),
        ("b", 7, ["nncf"]),
        ("b", 8, ["nncf"]),
    ]


def test_answers_go_to_their_network_and_seed() -> None:
    planned = jobs(["digits", "resnet56"], ["nncf"], [0, 1])
    answers: list[dict[str, Any]] = [{"float": {"outcomes": "1111"}}, {"float": {"outcomes": "0000"}}]
    answers += [
        {"nncf": {"outcomes": text, "layers": {"int8": 1}, "agreement": share, "kl": 0.1}}
        for text, share in (("1110", 0.75), ("1100", 0.5), ("0000", 1.0), ("0000", 1.0))
    ]
    found = gather("digits", planned, answers)
    assert found["float"]["top1"] == 1.0
    assert [item["top1"] for item in found["tools"]["nncf"]["seeds"]] == [0.75, 0.5]
    assert found["tools"]["nncf"]["layers"] == {"int8": 1}
    assert [item["agreement"] for item in found["tools"]["nncf"]["fidelity"]] == [0.75, 0.5]


def test_the_table_says_what_was_measured() -> None:
    networks = {"digits": summary(170)}
    results = {"networks": networks, "conditions": conditions(networks)}
    settings = {"validation": False, "seeds": [0, 1], "calibration_images": 300}
    text = to_markdown({"results": results, "settings": settings})
    assert "| digits example, 200 images |" in text
    assert "| edgekit, default | 85.00 % | 5.00 [" in text
    assert "| ONNX Runtime (best peer) | 85.00 % | 5.00 [" in text
    assert "| 98.00 % | 3.00 | 3 of 4 |" in text
    assert "averaged over the networks, at most 0.3 points: 5.00, MISSED" in text
    assert "at most 0.2 points: not measured" in text
    assert "evaluated on test images" in text


@pytest.mark.parametrize("part", [["--validation"], ["--seeds", "0"], ["--networks", "digits"], ["--tools", "nncf"]])
def test_only_the_whole_benchmark_is_recorded(
    part: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = ["--checkpoint", "c.th", "--data", "train", "--test", "test"]
    monkeypatch.setattr("sys.argv", ["accuracy", *inputs, *part, "--record"])
    with pytest.raises(SystemExit):
        parse()
    assert "--record is for the whole benchmark" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["accuracy", *inputs, "--record"])
    assert parse().seeds == [0, 1, 2, 3, 4]


def test_outcomes_are_those_of_the_task(tmp_path: Any) -> None:
    # Images of class 4 and of class 0; the model says 4 for both.
    images = [
        ReadImage(
            sample=Sample(path=tmp_path / f"{label}.png", label=label),
            pixels=np.zeros((32, 32, 1), np.uint8),
            frame_shape=(48, 48, 1),
        )
        for label in (4, 0)
    ]
    logits = np.zeros((1, 10), np.float32)
    logits[0, 4] = 1
    assert outcomes(NETWORKS["digits"], images, [logits, logits]) == "10"


def test_fidelity_counts_equal_classes_and_measures_probabilities() -> None:
    reference = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], dtype=np.float32))
    assert fidelity(reference, reference + 3) == {"agreement": 1.0, "kl": pytest.approx(0.0, abs=1e-6)}
    other = np.log(np.array([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]], dtype=np.float32))
    # 0.5 ln 2 - 0.25 ln 2 on the first image, nothing on the second.
    assert fidelity(reference, other) == {"agreement": 0.5, "kl": pytest.approx(0.125 * np.log(2), rel=1e-5)}
