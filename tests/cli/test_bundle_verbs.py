"""The verbs that take a bundle: eval, run, bench, inspect, extract."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgekit.bundle import read_bundle
from edgekit.cli.main import main
from edgekit.runtime.machine import default_target
from tests.cli.conftest import Workshop


def document(words: list[str], capfd: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
    capfd.readouterr()
    assert main([*words, "--json"]) == code
    parsed: dict[str, Any] = json.loads(capfd.readouterr().out)
    return parsed


def test_eval_gives_the_metric_as_a_whole_and_per_class(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(workshop.data / "light", data / "light")
    (data / "dark").mkdir()
    for number in range(10):  # light images under the wrong name: the engine must be seen to miss them
        shutil.copy(workshop.data / "light" / f"{number:02d}.png", data / "dark")
    found = document(["eval", str(workshop.bundle), "--data", str(data), "--threads", "1"], capfd)
    assert found["schema"] == "edgekit.eval/1"
    assert found["metric"] == "top1"
    assert found["samples"] == 50
    assert found["value"] == pytest.approx(0.8)
    assert found["per_class"] == {"dark": {"value": 0.0, "samples": 10}, "light": {"value": 1.0, "samples": 40}}
    assert found["engine"]["precision"] == "int8"
    assert main(["eval", str(workshop.bundle), "--data", str(data)]) == 0
    text = capfd.readouterr().out
    assert "top1 80.00 % of 50 images" in text
    assert "100.00 %" in text


def test_eval_counts_a_corrupt_image(workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(workshop.data, data)
    (data / "dark" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    found = document(["eval", str(workshop.bundle), "--data", str(data)], capfd)
    assert found["samples"] == 79
    (skipped,) = found["skipped"]
    assert "00.png" in skipped


def test_eval_wants_labels(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    found = document(["eval", str(workshop.bundle), "--data", str(workshop.data / "dark")], capfd, code=2)
    assert found["schema"] == "edgekit.error/1"
    assert found["error"] == "DataError"
    assert str(workshop.data / "dark") in found["message"]
    assert "folder per class" in found["hint"]


def test_run_gives_one_result_and_one_picture_for_each_image(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    sources = [
        str(workshop.data / "light" / "00.png"),
        str(workshop.data / "dark" / "00.png"),
        str(workshop.data / "light"),
    ]
    found = document(["run", str(workshop.bundle), *sources, "--save", str(pictures)], capfd)
    assert found["schema"] == "edgekit.run/1"
    assert [entry["path"] for entry in found["results"][:2]] == sources[:2]
    assert [entry["result"]["label"] for entry in found["results"]] == ["light", "dark"] + ["light"] * 40
    saved = [Path(entry["picture"]) for entry in found["results"]]
    assert len(set(saved)) == 42
    assert sorted(path.name for path in saved) == sorted(path.name for path in pictures.iterdir())
    assert {path.name for path in saved} >= {"00.png", "00-2.png", "00-3.png"}
    picture = cv2.imread(str(saved[0]))
    assert picture is not None
    assert picture.ndim == 3


def test_run_prints_a_table(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(workshop.bundle), str(workshop.data / "dark" / "01.png")]) == 0
    text = capfd.readouterr().out
    assert "01.png" in text
    assert "label dark" in text


def test_run_leaves_out_what_it_cannot_read_and_says_so(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workshop.data / "dark", tmp_path / "mixed")
    (tmp_path / "mixed" / "07.png").write_bytes(b"")
    found = document(["run", str(workshop.bundle), str(tmp_path / "mixed")], capfd)
    assert len(found["results"]) == 39
    assert "07.png" not in {Path(entry["path"]).name for entry in found["results"]}
    assert Path(found["skipped"][0]["path"]).name == "07.png"
    assert "empty" in found["skipped"][0]["reason"]
    assert main(["run", str(workshop.bundle), str(tmp_path / "mixed" / "07.png")]) == 2
    assert "07.png" in capfd.readouterr().err


def test_run_refuses_a_path_that_is_not_there(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(workshop.bundle), str(tmp_path / "none.png")]) == 2
    assert "none.png: no such image or folder" in capfd.readouterr().err
    (tmp_path / "file").touch()
    words = ["run", str(workshop.bundle), str(workshop.data / "dark" / "01.png"), "--save", str(tmp_path / "file")]
    assert main(words) == 2
    assert "cannot make the folder" in capfd.readouterr().err


def test_bench_compares_and_writes_its_report(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    words = ["bench", str(workshop.bundle), "--baseline", str(workshop.bundle), "--data", str(workshop.data)]
    found = document([*words, "--duration", "0.05", "--threads", "1", "-o", str(report)], capfd)
    assert found["schema"] == "edgekit.bench/1"
    assert found["engine"]["p50_ms"] > 0
    assert found["comparison"]["ratio"]["low"] <= found["comparison"]["ratio"]["estimate"]
    assert found["side"]["session"]["inference_num_threads"] == "1"
    assert json.loads(report.read_text()) == found
    assert main(["bench", str(workshop.bundle), "--duration", "0"]) == 2


def test_inspect_needs_no_engine_to_show_what_is_inside(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = document(["inspect", str(workshop.bundle)], capfd)
    assert found["schema"] == "edgekit.inspect/1"
    assert found["manifest"]["content_digest"] == read_bundle(workshop.bundle).manifest.content_digest
    assert found["size_bytes"] == workshop.bundle.stat().st_size
    assert found["layers"] is None
    assert found["report"]["targets"][0]["shipped"] == ["int8"]
    assert main(["inspect", str(workshop.bundle)]) == 0
    text = capfd.readouterr().out
    for word in (
        "classification, 2 labels",
        f"{default_target().name} ",
        "int8",
        "shipped",
        "quantize",
        found["manifest"]["content_digest"],
    ):
        assert word in text


def test_inspect_layers_says_what_each_layer_ran_as(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    layers = document(["inspect", str(workshop.bundle), "--layers"], capfd)["layers"]
    compute = [layer for layer in layers["layers"] if layer["compute"]]
    assert layers["compute_by_precision"] == {"int8": len(compute)}
    assert {"Convolution", "FullyConnected"} <= {layer["kind"] for layer in compute}
    assert main(["inspect", str(workshop.bundle), "--layers"]) == 0
    assert f"{len(compute)} compute layers: int8 {len(compute)}" in capfd.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["inspect"], ["extract", "-o", "out"], ["eval", "--data", "."], ["bench"], ["inspect", "--layers"], ["diagnose"]],
)
def test_a_target_that_is_not_inside_names_the_nearest(
    words: list[str],
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([words[0], str(workshop.bundle), *words[1:], "--target", "x86-cpi"]) == 2
    errors = capfd.readouterr().err
    assert "x86-cpi" in errors
    assert "did you mean 'x86-cpu" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "verb", [["inspect"], ["extract", "-o", "out"], ["eval", "--data", "."], ["run", "x.png"], ["bench"], ["diagnose"]]
)
@pytest.mark.parametrize("damage", ["missing", "folder", "cut", "flipped"])
def test_a_damaged_bundle_is_refused(
    verb: list[str], damage: str, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes((workshop.data / "dark" / "00.png").read_bytes())
    bundle = tmp_path / "bad.edge"
    data = bytearray(workshop.bundle.read_bytes())
    if damage == "folder":
        bundle.mkdir()
    elif damage == "cut":
        bundle.write_bytes(data[:-100])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        bundle.write_bytes(data)
    assert main([verb[0], str(bundle), *verb[1:]]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err
    assert "bad.edge" in captured.err
    assert "Traceback" not in captured.err


def test_extract_writes_plain_files_and_replaces_only_its_own(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "files"
    found = document(["extract", str(workshop.bundle), "-o", str(output)], capfd)
    assert found["schema"] == "edgekit.extract/1"
    here = default_target().name
    names = {Path(item["path"]).relative_to(output).as_posix() for item in found["files"]}
    assert {"README.txt", "labels.txt", f"{here}/int8/model.onnx", f"{here}/int8/model.xml"} <= names
    assert all(Path(item["path"]).stat().st_size == item["size_bytes"] for item in found["files"])
    assert main(["extract", str(workshop.bundle), "-o", str(output)]) == 2
    assert "not empty" in capfd.readouterr().err
    assert main(["extract", str(workshop.bundle), "-o", str(output), "--force"]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep").touch()
    assert main(["extract", str(workshop.bundle), "-o", str(tmp_path / "mine"), "--force"]) == 2
    assert (tmp_path / "mine" / "keep").exists()
