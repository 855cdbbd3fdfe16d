from __future__ import annotations

import re
from typing import Any

from edgekit.diagnostics import diagnosis_text, parse_diagnoses
from tests.diagnostics.reports import SCHEME, make_diagnosis, make_report


def text_of(diagnosis: dict[str, Any], *, top: int = 10, width: int | None = None) -> str:
    return diagnosis_text(parse_diagnoses({"diagnostics": {SCHEME: diagnosis}})[SCHEME], top=top, width=width)


def listed(text: str) -> list[str]:
    """Returns the names of the table's layers, in order."""
    return re.findall(r"^ *\d+  (\S+)  ", text, flags=re.MULTILINE)


def test_the_worst_layers_are_listed_first() -> None:
    diagnosis = make_diagnosis(20)
    ranked = sorted((layer for layer in diagnosis["layers"] if layer["rank"]), key=lambda layer: layer["rank"])
    text = text_of(diagnosis, top=4)
    assert listed(text) == [layer["name"] for layer in ranked[:4]]
    assert "(4 of 18)" in text
    assert listed(text_of(diagnosis, top=99)) == [layer["name"] for layer in ranked]
    assert "(all 18)" in text_of(diagnosis, top=99)


def test_a_row_has_the_layer_s_numbers_and_those_of_its_input() -> None:
    diagnosis = make_diagnosis(12)
    layer = next(item for item in diagnosis["layers"] if item["rank"] == 1)
    tensor = next(item for item in diagnosis["tensors"] if layer["name"] in item["consumers"])
    tensor |= {"saturated": 0.0123, "utilisation": 0.42, "unsettled": 0.34, "range": [-1.5, 6.0]}
    layer |= {"own_sqnr_db": 11.26, "accumulated_sqnr_db": -3.0}
    (row,) = [line for line in text_of(diagnosis).splitlines() if line.startswith("   1  ")]
    expected = ["1", layer["name"], "11.3", "-3.0", "[-1.5, 6]", "1.2 %", "42 %", "34 %"]
    assert re.split(r" {2,}", row.strip()) == expected


def test_what_is_float_and_what_was_found_is_told() -> None:
    text = text_of(make_diagnosis(20))
    assert "18 of 20 layers int8, 2 float" in text
    assert "  costs 0.4 points:\n    head" in text
    assert "output 'output': SQNR" in text
    assert "on 16 held-out images" in text
    broken = next(layer["name"] for layer in make_diagnosis(20)["layers"] if layer["rank"] == 1)
    assert f"finding: unsettled range: relu_10 (input of {broken}): the range from one half" in text
    assert "\n  give more images (--samples), now 64" in text


def test_gains_are_summed_up_by_stage() -> None:
    gains = [("bias", "a", 1.0, True), ("bias", "b", 3.0, True), ("bias", "c", -2.0, False), ("round", "a", None, True)]
    keys = ("stage", "layer", "gain_db", "kept")
    text = text_of({"corrections": [dict(zip(keys, gain, strict=True)) for gain in gains]})
    assert "  bias: kept on 2 of 3 layers, gain +2.0 dB in the middle, at most 3.0 dB (b)" in text
    assert text.endswith("  round: kept on 1 of 1 layers")


def test_what_is_missing_is_a_dash_or_nothing() -> None:
    text = text_of({"layers": [{"name": "only", "precision": "int8"}]})
    assert re.split(r" {2,}", text.splitlines()[-1].strip()) == ["-", "only", *["-"] * 6]
    assert "finding" not in text
    assert "corrections" not in text
    assert text_of({}).splitlines() == [SCHEME, "  no layer was measured"]


def test_tensors_that_no_listed_layer_reads_have_a_table_of_their_own() -> None:
    tensors = [{"name": f"add_{index}", "range": [0, index], "unsettled": 0.5} for index in range(1, 4)]
    layers = [{"name": "l", "precision": "int8"}]
    text = text_of({"layers": layers, "tensors": [*tensors, {"name": "relu", "consumers": ["l"]}]}, top=2)
    (title, *rows) = text.split("\n\n")[-1].splitlines()
    assert title == "other quantized tensors (2 of 3):"
    assert [re.split(r" {2,}", row) for row in rows[2:]] == [
        ["add_1", "[0, 1]", "-", "-", "50 %"],
        ["add_2", "[0, 2]", "-", "-", "50 %"],
    ]


def test_the_table_fits_the_terminal() -> None:
    diagnosis = make_diagnosis(20)
    for layer in diagnosis["layers"]:
        layer["name"] = "backbone." * 9 + layer["name"]
    table = text_of(diagnosis, width=80).split("\n\n")[1].splitlines()[1:]
    assert max(map(len, table)) <= 80
    assert len(table) > 20


def test_nothing_steers_the_terminal() -> None:
    report = make_report(6)
    report["diagnostics"][SCHEME]["layers"][2]["name"] = "\x1b]0;title\x07evil"
    assert text_of(report["diagnostics"][SCHEME]).replace("\n", "").isprintable()
