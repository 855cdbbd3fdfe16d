"""The page, read back with an HTML parser."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from edgekit.diagnostics import page, parse_diagnoses, parse_headline
from tests.diagnostics.conftest import Page
from tests.diagnostics.reports import SCHEME, make_diagnosis, make_report

Read = Callable[[str], Page]


def page_of(report: dict[str, Any], *, opened: int = 3) -> str:
    return page(parse_headline(report), list(parse_diagnoses(report).values()), opened=opened)


def rows(found: Page) -> list[str]:
    return [node.text for node in found.all("span", class_="who") if "summary" in node.parents]


def test_the_worst_layers_come_first_and_are_open(read: Read) -> None:
    report = make_report(20)
    found = read(page_of(report, opened=3))
    layers = report["diagnostics"][SCHEME]["layers"]
    ranked = sorted((layer for layer in layers if layer["rank"]), key=lambda layer: layer["rank"])
    assert [row.split(" ")[0] for row in rows(found)][:18] == [layer["name"] for layer in ranked]
    opened = ["open" in node.attributes for node in found.all("details") if "data-index" in node.attributes]
    assert opened == [True] * 3 + [False] * 15


def test_each_layer_has_the_histogram_of_its_input(read: Read) -> None:
    report = make_report(20)
    found = read(page_of(report))
    drawings = found.all("svg", class_="histogram")
    assert len(drawings) == len(report["diagnostics"][SCHEME]["tensors"])
    assert all(node.attributes["role"] == "img" and node.attributes["aria-label"] for node in drawings)
    assert len(found.all("svg", class_="overview")) == 1


def test_numbers_and_reasons_are_on_the_page(read: Read) -> None:
    report = make_report(20)
    text = read(page_of(report)).all("body")[0].text
    for word in (
        "made-up-net",
        "18 of 20",
        "16 held-out images",
        "93.00 %",
        "0.12 [-0.05, 0.29]",
        "0.414 [0.409, 0.421]",
        "851 KiB",
        "passed every gate and is the fastest",
        "3 input channels: float is as fast",
        "the range from one half of the images is 34 % wider",
        "give more images (--samples), now 64",
        "classes without an image",
        "correct-bias",
    ):
        assert word in text, word


def test_the_shares_of_a_second_input_are_told_too(read: Read) -> None:
    """Those of the first stand in the layer's own line."""
    tensors = [{"name": name, "consumers": ["l"], "saturated": 0.25} for name in ("t", "u")]
    layers = [{"name": "l", "precision": "int8"}]
    one, two = (
        read(page_of({"diagnostics": {SCHEME: {"layers": layers, "tensors": tensors[:count]}}})) for count in (1, 2)
    )
    assert [node.text for node in one.all("dt") if "details" in node.parents] == ["input"]
    assert [node.text for node in two.all("dt") if "details" in node.parents] == ["input", "input", "outside range"]
    assert one.all("summary")[0].text.count("25 %") == 1


def test_what_an_engine_did_otherwise_than_planned_is_told(read: Read) -> None:
    report = make_report(6)
    report["targets"][0]["candidates"][0]["findings"] = ["conv1 was planned int8 and ran f32"]
    assert "int8: conv1 was planned int8 and ran f32" in read(page_of(report)).all("body")[0].text


def test_links_lead_somewhere_and_ids_are_unique(read: Read) -> None:
    report = make_report(20)
    report["diagnostics"]["int8 2: jetson"] = make_diagnosis(20, seed=1)
    report["diagnostics"][SCHEME]["findings"].append({"what": "low", "where": "add_3", "why": "w", "help": "h"})
    found = read(page_of(report))
    ids = [node.attributes["id"] for node in found.nodes if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    goals = {node.attributes["href"] for node in found.all("a")}
    assert {goal[0] for goal in goals} == {"#"}
    linked = {goal[1:] for goal in goals}
    assert linked <= set(ids)
    assert len({goal for goal in linked if goal.startswith("s0-layer-")}) == 20
    lists = {node.attributes["data-list"] for node in found.all("div", class_="tools")}
    assert lists <= set(ids)
    finding = next(node for node in found.all("a") if node.text == "relu_10" and "li" in node.parents)
    worst = next(index for index, layer in enumerate(report["diagnostics"][SCHEME]["layers"]) if layer["rank"] == 1)
    assert finding.attributes["href"] == f"#s0-layer-{worst}"


def test_nothing_is_fetched_and_no_other_script_may_run(read: Read) -> None:
    text = page_of(make_report(20))
    assert re.findall(r"(?:https?:)?//[a-z]", text) == []
    found = read(text)
    assert {node.tag for node in found.nodes} & {"link", "img", "iframe", "object", "base", "use", "image"} == set()
    assert not any(name in node.attributes for node in found.nodes for name in ("src", "srcset", "xlink:href"))
    assert re.findall(r"url\((?!#)|@import", text) == []
    (policy,) = [node.attributes["content"] for node in found.all("meta") if "http-equiv" in node.attributes]
    (script,) = found.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


HOSTILE = "\"><script>alert(1)</script><img src=x onerror='a'>&amp;</style>\x1b[31m"


def test_hostile_text_stays_text(read: Read) -> None:
    """Every text of the report is replaced in turn by one that would break out of any place it stands in."""
    clean = read(page_of(make_report(6)))
    report = _with_hostile_texts(make_report(6))
    report["diagnostics"] = {f"{HOSTILE}{scheme}": data for scheme, data in report["diagnostics"].items()}
    text = page_of(report)
    found = read(text)
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert {node.tag for node in found.nodes} <= {node.tag for node in clean.nodes}
    assert {name for node in found.nodes for name in node.attributes} <= {
        name for node in clean.nodes for name in node.attributes
    }
    assert sum(node.text.count("<script>alert(1)</script>") for node in found.all("main")) > 50


def _with_hostile_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_hostile_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_hostile_texts(item) for item in value]
    if isinstance(value, str):
        return value if value in ("int8", "float") else HOSTILE + value
    return value


@pytest.mark.parametrize("missing", ["layers", "tensors", "outputs", "corrections", "findings", "images"])
def test_a_missing_part_is_left_out(missing: str, read: Read) -> None:
    report = make_report(8)
    del report["diagnostics"][SCHEME][missing]
    assert read(page_of(report)).all("h1")[0].text == "made-up-net"


def test_the_emptiest_report_is_still_a_page(read: Read) -> None:
    found = read(page_of({"diagnostics": {SCHEME: None}}))
    assert found.all("h1")[0].text == "unnamed model"
    assert SCHEME in found.all("h2")[0].text
    layer = {"layers": [{"name": "l", "precision": "int8"}], "tensors": [{"name": "t"}, {"consumers": ["l"]}]}
    assert rows(read(page_of({"diagnostics": {SCHEME: layer}})))[0].startswith("l")


def test_a_constant_or_empty_tensor_is_shown(read: Read) -> None:
    report = make_report(8)
    first, second = report["diagnostics"][SCHEME]["tensors"][:2]
    first |= {"observed": [0, 0], "range": [0, 0], "histogram": {"edges": [0] * 65, "counts": [9] + [0] * 63}}
    second |= {"histogram": {"edges": [0] * 65, "counts": [0] * 64}}
    found = read(page_of(report))
    assert len(found.all("svg", class_="histogram")) == len(report["diagnostics"][SCHEME]["tensors"])


def test_300_layers_stay_below_a_megabyte_and_the_page_is_deterministic() -> None:
    text = page_of(make_report(300))
    assert len(text.encode()) < 1_000_000
    assert page_of(make_report(300)) == text
