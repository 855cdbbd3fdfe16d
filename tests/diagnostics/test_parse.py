from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edgekit.diagnostics import Diagnosis, diagnosis_text, page, parse_diagnoses, parse_headline
from tests.diagnostics.reports import SCHEME, make_report


def parse_one(diagnosis: Any) -> Diagnosis:
    return parse_diagnoses({"diagnostics": {SCHEME: diagnosis}})[SCHEME]


def test_every_number_of_a_report_arrives() -> None:
    report = make_report(12)
    data = report["diagnostics"][SCHEME]
    found = parse_diagnoses(report)[SCHEME]
    assert found.images == 16
    assert [output.sqnr_db for output in found.outputs] == [item["sqnr_db"] for item in data["outputs"]]
    for layer, item in zip(found.layers, data["layers"], strict=True):
        assert {key: getattr(layer, key) for key in item} == item
    for tensor, item in zip(found.tensors, data["tensors"], strict=True):
        for key in ("name", "role", "producer", "method", "saturated", "utilisation", "unsettled"):
            assert getattr(tensor, key) == item[key]
        assert list(tensor.consumers) == item["consumers"]
        assert [tensor.observed, tensor.range, tensor.halves] == [
            tuple(item["observed"]),
            tuple(item["range"]),
            tuple(tuple(half) for half in item["halves"]),
        ]
        assert tensor.histogram is not None
        assert list(tensor.histogram.edges) == item["histogram"]["edges"]
        assert list(tensor.histogram.counts) == item["histogram"]["counts"]
    assert [vars(finding) for finding in found.findings] == data["findings"]
    assert [vars(correction) for correction in found.corrections] == data["corrections"]


def test_the_worst_come_first_and_float_layers_stand_apart() -> None:
    ranks = [3, None, 1, None, 2, None]
    own = [20.0, 40.0, 10.0, None, 15.0, 30.0]
    layers = [
        {"name": f"l{index}", "precision": "int8", "rank": rank, "own_sqnr_db": sqnr}
        for index, (rank, sqnr) in enumerate(zip(ranks, own, strict=True))
    ]
    layers += [
        {"name": "a", "precision": "float", "reason": "one"},
        {"name": "b", "precision": "float", "reason": "two"},
        {"name": "c", "precision": "float", "reason": "two"},
    ]
    found = parse_one({"layers": layers})
    assert [layer.name for layer in found.worst_first] == ["l2", "l4", "l0", "l5", "l1", "l3"]
    names = {reason: [layer.name for layer in layers] for reason, layers in found.left_float.items()}
    assert list(names.items()) == [("two", ["b", "c"]), ("one", ["a"])]
    assert found.int8_layers == 6


def test_tensors_belong_to_the_layers_that_read_them() -> None:
    tensors = [{"name": "t", "consumers": ["a", "b"]}, {"name": "u", "consumers": ["b"]}, {"name": "v"}]
    found = parse_one({"layers": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "tensors": tensors})
    inputs = [[tensor.name for tensor in found.inputs_of(layer)] for layer in found.layers]
    assert inputs == [["t"], ["t", "u"], []]
    assert [tensor.name for tensor in found.unclaimed_tensors] == ["v"]


@pytest.mark.parametrize("scheme", [SCHEME, "int8 2: x86-cpu, jetson", "odd"])
def test_targets_are_read_from_the_scheme(scheme: str) -> None:
    expected = {SCHEME: ("x86-cpu",), "int8 2: x86-cpu, jetson": ("x86-cpu", "jetson"), "odd": ("odd",)}
    assert parse_diagnoses({"diagnostics": {scheme: {}}})[scheme].targets == expected[scheme]


NONSENSE: list[Any] = [None, True, -1.5, "x", {}, [None], [[], {}], 10**400]


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_a_value_of_another_kind_breaks_nothing(value: Any) -> None:
    """Every key in turn, at every depth: the report is read, and both renderers show what is left."""
    whole = json.dumps(make_report(4))
    for place in _places(json.loads(whole)):
        broken = json.loads(whole)
        holder: Any = broken
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        found = parse_diagnoses(broken)
        assert "<main>" in page(parse_headline(broken), list(found.values()), opened=1)
        for scheme, diagnosis in found.items():
            assert diagnosis_text(diagnosis, top=3).startswith(scheme)


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values of a report; of a list the first item stands for all."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[:1]
    found = [(*place, key) for key, _ in items]
    for key, item in items:
        found += _places(item, (*place, key))
    return found


@pytest.mark.parametrize("value", ["high", True, math.nan, math.inf, -math.inf, 1e200, 10**400, None, [1]], ids=repr)
def test_what_is_no_usable_number_could_not_be_had(value: Any) -> None:
    found = parse_one({"layers": [{"name": "l", "own_sqnr_db": value, "rank": value}]})
    assert found.layers[0].own_sqnr_db is None
    assert found.layers[0].rank is None


@pytest.mark.parametrize(
    "value", [[1], [1, 2, 3], [2, 1], ["1", 2], [None, 1], "ab", {"low": 1}, [math.nan, 1]], ids=repr
)
def test_what_is_no_range_could_not_be_had(value: Any) -> None:
    found = parse_one({"tensors": [{"name": "t", "range": value, "observed": [0, 1], "halves": [[0, 1], value]}]})
    assert found.tensors[0].range is None
    assert found.tensors[0].halves is None
    assert found.tensors[0].observed == (0.0, 1.0)


@pytest.mark.parametrize(
    ("edges", "counts"),
    [
        ([], []),
        ([0], []),
        ([0, 1], []),
        ([0, 1], [1, 2]),
        ([0, 1, 2], [1]),
        ([0, 2, 1], [1, 1]),
        ([0, 1], [-1]),
        ([0, None], [1]),
        ([0, 1], ["1"]),
    ],
)
def test_a_histogram_that_does_not_add_up_is_left_out(edges: list[Any], counts: list[Any]) -> None:
    found = parse_one({"tensors": [{"name": "t", "histogram": {"edges": edges, "counts": counts}}]})
    assert found.tensors[0].histogram is None


def test_characters_that_steer_a_terminal_are_shown_as_a_mark() -> None:
    name = "a\x1b[31mb\u202ec\ud800d\x00e\nf\tg"
    layer = parse_one({"layers": [{"name": name}]}).layers[0]
    assert layer.name == "a\ufffd[31mb\ufffdc\ufffdd\ufffde f g"
    layer.name.encode()


def test_the_headline_has_what_was_measured() -> None:
    headline = parse_headline(make_report())
    assert (headline.name, headline.metric, headline.float_accuracy) == ("made-up-net", "top1", 0.9312)
    assert (headline.calibration_images, headline.evaluation_images) == (64, 5000)
    (target,) = headline.targets
    int8, fp32 = target.candidates
    assert int8.drop == (0.12, -0.05, 0.29)
    assert int8.ratio == (0.414, 0.409, 0.421)
    assert fp32.drop is None
    assert fp32.ratio is None
    assert int8.counts == {"int8": 18, "f32": 2}


def test_a_report_without_diagnostics_has_none() -> None:
    assert parse_diagnoses({}) == {}
    assert parse_headline({}).targets == ()
