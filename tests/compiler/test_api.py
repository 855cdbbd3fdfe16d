"""The whole flow, from a live module to a bundle that the device runtime loads and that answers right."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.compiler import CompileReport
from edgekit.runtime import load
from tests.compiler.world import COLORS, HERE, World, picture


def test_the_bundle_loads_with_its_self_test_and_answers_right(compiled: CompileReport, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    with load(compiled.output, threads=1) as model:
        # Which precision is fastest here is the machine's business; what ships must run as what it is called.
        assert {layer.precision for layer in model.session.layers() if layer.compute} == {model.entry.precision}
        for label in COLORS:
            cv2.imwrite(str(tmp_path / f"{label}.png"), picture(label, generator))
            assert model(cv2.imread(str(tmp_path / f"{label}.png"))).label == label


def test_int8_is_measured_against_every_float_candidate(compiled: CompileReport) -> None:
    (target,) = compiled.targets
    assert target.latency == "measured"
    assert target.verified_on == "this device"
    assert {"int8", "fp32"} <= {item.precision for item in target.candidates}
    for item in target.candidates:
        assert item.status in ("shipped", "passed", "rejected")
        assert item.reason
        assert item.graph_bytes > 0
        assert item.engine_bytes > 0
        assert item.accuracy is not None
        assert item.accuracy.kind == "measured"
        assert item.accuracy.value == 1.0
        assert item.accuracy.drop is not None
        assert item.accuracy.drop.contains(0.0)
        assert item.latency is not None
        assert 0 < item.latency.p50_ms <= item.latency.p90_ms
        assert item.golden_limit is not None
        assert all(error <= item.golden_limit for error in item.golden.values())
    assert target.candidate("int8").layer_counts() == {"int8": 4}
    assert target.candidate("fp32").layer_counts() == {"fp32": 4}
    assert compiled.float_accuracy is not None
    assert compiled.float_accuracy.value == 1.0


def test_what_ships_is_the_fastest_that_passed(compiled: CompileReport) -> None:
    (target,) = compiled.targets
    (precision,) = target.shipped
    assert [item.precision for item in target.candidates if item.status == "shipped"] == [precision]
    times = {item.precision: item.latency.p50_ms for item in target.candidates if item.status in ("shipped", "passed")}
    assert times[precision] <= min(times.values()) / 0.98
    assert precision in target.why
    (entry,) = read_bundle(compiled.output).manifest.entries
    assert (entry.target, entry.precision, entry.latency, entry.accuracy) == (
        HERE,
        precision,
        "measured",
        "measured",
    )


def test_the_document_is_json_with_its_schema_first(compiled: CompileReport) -> None:
    document = json.loads(json.dumps(compiled.to_dict(), allow_nan=False))
    assert next(iter(document)) == "schema"
    assert document["schema"] == "edgekit.compile/1"
    assert document["output"] == str(compiled.output)
    assert document["bundle_bytes"] == compiled.output.stat().st_size
    assert document["content_digest"] == read_bundle(compiled.output).manifest.content_digest


def test_the_text_names_what_ships_and_every_candidate(compiled: CompileReport) -> None:
    text = compiled.to_text()
    for word in (f"{HERE}: ships", "int8", "fp32", "100.00 %", str(compiled.output), compiled.content_digest):
        assert word in text


def test_forced_int8_ships_int8_with_the_layers_and_the_data_counted(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        world.net,
        target=HERE,
        task=world.task,
        data=world.data,
        samples=40,
        precision="int8",
        output=tmp_path / "m.edge",
        threads=1,
    )
    (target,) = report.targets
    assert target.shipped == ("int8",)
    assert target.why == "int8 was asked for"
    assert [item.precision for item in target.candidates] == ["int8"]
    assert (report.data.calibration, report.data.evaluation, report.data.skipped) == (40, 40, ())


def test_without_an_output_the_bundle_is_named_after_the_model(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = edgekit.compile(world.net, target="x86-cpu", task=world.task, precision="fp32", timing=False)
    assert report.output == Path("Residual.edge")
    assert (tmp_path / "Residual.edge").is_file()
    (tmp_path / "Residual.edge").unlink()
    (tmp_path / "Residual.edge").mkdir()
    with pytest.raises(edgekit.errors.UserError, match=r"Residual\.edge: is a folder"):
        edgekit.compile(world.net, target="x86-cpu", task=world.task, precision="fp32", timing=False)


def test_the_module_is_left_as_it_was(world: World, compiled: CompileReport) -> None:
    assert not world.net.training
    assert {type(item).__name__ for item in world.net.modules()} >= {"BatchNorm2d", "Dropout"}
