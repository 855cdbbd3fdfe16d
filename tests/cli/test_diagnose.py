"""``edgekit diagnose``, on bundles whose report is made up in the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import FORMAT_MAJOR, FORMAT_MINOR, Entry, Golden, Manifest, array_bytes, store_name, write_bundle
from edgekit.cli.main import main
from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec
from tests.cli.test_json_docs import described, keys
from tests.diagnostics.reports import SCHEME, make_diagnosis, make_report

Make = Callable[[dict[str, Any]], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Returns what makes a bundle of a report: two targets, no engine."""

    def bundle(report: dict[str, Any]) -> Path:
        graph, array = b"not looked at", array_bytes(np.zeros((1, 2), np.float32))
        names = {"graph": store_name("graphs", graph, ".onnx"), "array": store_name("golden", array, ".npy")}
        entries = tuple(
            Entry(
                target=target,
                backend="tensorrt",
                precision="int8",
                engine=None,
                options={},
                requires=Requires(),
                latency="unverified",
                accuracy="simulated",
                graph=names["graph"],
                inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 2)),),
                outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 2)),),
                golden=Golden(inputs={"image": names["array"]}, outputs={"scores": names["array"]}, rel_l2=0.01),
            )
            for target in ("x86-cpu", "jetson-orin-nano")
        )
        manifest = Manifest(
            format=(FORMAT_MAJOR, FORMAT_MINOR), producer={"edgekit": "0"}, name="net", task=None, entries=entries
        )
        path = tmp_path / "model.edge"
        write_bundle(path, manifest=manifest, files={names["graph"]: graph, names["array"]: array}, report=report)
        return path

    return bundle


def document(words: list[str], capfd: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
    capfd.readouterr()
    assert main([*words, "--json"]) == code
    parsed: dict[str, Any] = json.loads(capfd.readouterr().out)
    return parsed


def test_the_tables_are_printed(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    path = make(make_report(20))
    assert main(["diagnose", str(path), "--top", "3"]) == 0
    text = capfd.readouterr().out
    assert "18 of 20 layers int8, 2 float" in text
    assert "(3 of 18)" in text
    assert "finding: unsettled range" in text


def test_the_document_has_what_the_bundle_keeps(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    report = make_report(8)
    found = document(["diagnose", str(make(report))], capfd)
    assert found["schema"] == "edgekit.diagnose/1"
    assert found["name"] == "net"
    assert found["diagnostics"] == report["diagnostics"]
    assert found["html"] is None


def test_every_key_of_the_document_is_described(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    found = document(["diagnose", str(make(make_report(8)))], capfd)
    words = set(keys({**found, "diagnostics": None}, depth=1)) | set(keys(found["diagnostics"][SCHEME], depth=3))
    assert words - {"schema"} <= described("edgekit.diagnose/1")


def test_a_target_has_its_own_diagnosis(make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = make_report(8)
    report["diagnostics"]["int8 2: jetson-orin-nano"] = make_diagnosis(8, seed=1)
    path = make(report)
    assert len(document(["diagnose", str(path)], capfd)["diagnostics"]) == 2
    words = ["diagnose", str(path), "--target", "jetson", "--html", str(tmp_path / "page.html")]
    found = document(words, capfd)
    assert list(found["diagnostics"]) == ["int8 2: jetson-orin-nano"]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "int8 2: jetson-orin-nano" in text
    assert SCHEME not in text


def test_the_page_is_written_whole_or_not_at_all(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(make_report(8))
    page = tmp_path / "page.html"
    assert document(["diagnose", str(path), "--html", str(page)], capfd)["html"] == str(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert main(["diagnose", str(path), "--html", str(page)]) == 0
    assert f"page: {page}" in capfd.readouterr().out
    assert page.read_text(encoding="utf-8") == text

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    page.write_text("mine", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    assert main(["diagnose", str(path), "--html", str(page)]) == 2
    assert page.read_text(encoding="utf-8") == "mine"
    assert sorted(tmp_path.iterdir()) == before
    assert main(["diagnose", str(path), "--html", str(tmp_path / "none" / "page.html")]) == 2
    assert "there is no folder" in capfd.readouterr().err


@pytest.mark.parametrize("report", [{}, {"diagnostics": {}}, {"diagnostics": None}, {"diagnostics": [1]}], ids=repr)
def test_a_bundle_without_diagnostics_says_what_to_do(
    report: dict[str, Any], make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    found = document(["diagnose", str(make(report)), "--html", str(page)], capfd, code=2)
    assert found["error"] == "UserError"
    assert "model.edge: holds no quantization diagnostics" in found["message"]
    assert "--data" in found["hint"]
    assert not page.exists()


def test_a_target_that_is_unknown_or_has_none(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(make(make_report(8)))
    assert "did you mean 'x86-cpu'" in document(["diagnose", path, "--target", "x86-cpi"], capfd, code=2)["hint"]
    found = document(["diagnose", path, "--target", "jetson"], capfd, code=2)
    assert "no quantization diagnostics for target 'jetson-orin-nano'" in found["message"]


def test_top_must_be_positive(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(make(make_report(8))), "--top", "0"]) == 2
    assert "--top" in capfd.readouterr().err


def test_a_hostile_scheme_does_no_harm(make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scheme = "<script>alert(1)</script>\x1b[2J: x86-cpu"
    page = tmp_path / "page.html"
    path = make({"diagnostics": {scheme: make_diagnosis(4)}})
    assert main(["diagnose", str(path), "--html", str(page), "--target", "x86-cpu"]) == 0
    assert "\x1b" not in capfd.readouterr().out
    assert "<script>alert" not in page.read_text(encoding="utf-8")


BARE = """
import sys
sys.modules.update(dict.fromkeys(["openvino", "torch", "onnx", "cv2", "tensorrt", "tensorrt_rtx"]))
from edgekit.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_no_library_of_a_backend_or_of_the_compiler_is_needed(make: Make, tmp_path: Path) -> None:
    words = ["diagnose", str(make(make_report(8))), "--html", str(tmp_path / "page.html")]
    answer = subprocess.run([sys.executable, "-c", BARE, *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "int8 layers, the worst first" in answer.stdout
