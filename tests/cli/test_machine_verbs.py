"""The verbs about hardware: targets and doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.main import main
from edgekit.runtime.machine import default_target
from edgekit.targets import Target, list_targets

ROOT = Path(__file__).resolve().parents[2]


def test_targets_lists_every_target_and_marks_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    text = capsys.readouterr().out
    for target in list_targets():
        assert target.name in text
        assert target.title in text
    assert f"{default_target().name} *" in text
    assert main(["targets", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgekit.targets/1"
    assert document["default"] == default_target().name
    assert [target["name"] for target in document["targets"]] == [target.name for target in list_targets()]


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_a_target_shows_the_source_of_every_number(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    name = target.name
    assert main(["targets", name]) == 0
    text = capsys.readouterr().out
    assert main(["targets", name, "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["targets"]
    figures = [document[key] for key in ("memory", "bandwidth") if document[key] is not None]
    for figure in [*figures, *document["peaks"]]:
        assert figure["source"] in text
    assert document["channel_alignment_source"] in text


def test_an_alias_and_a_file_are_targets_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "jetson"]) == 0
    assert capsys.readouterr().out.startswith("jetson-orin-nano\n")
    own = (ROOT / "targets" / "x86-cpu.toml").read_text().replace('name = "x86-cpu"', 'name = "my-board"')
    (tmp_path / "my-board.toml").write_text(own)
    assert main(["targets", str(tmp_path / "my-board.toml")]) == 0
    assert capsys.readouterr().out.startswith("my-board\n")


def test_an_unknown_target_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "jetsn"]) == 2
    assert capsys.readouterr().err.splitlines() == ["error: unknown target 'jetsn'", "  did you mean 'jetson'?"]


def test_doctor_says_what_runs_here(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "edgekit.doctor/1"
    assert document["default_target"] == default_target().name
    assert document["targets"][default_target().name] == {"runs_here": True, "problem": None}
    assert not document["targets"]["jetson-thor"]["runs_here"]
    assert document["backends"]["openvino"]["version"].startswith(document["machine"]["libraries"]["openvino"])
    assert document["next"]
    assert main(["doctor"]) == 0
    text = capfd.readouterr().out
    assert document["machine"]["cpu"] in text
    assert f"{default_target().name} *" in text


@pytest.mark.parametrize(
    ("missing", "code", "advice"),
    [
        (("onnx", "torch"), 0, "edgekit"),  # a device: the compiler's half is not there, and is not needed
        (("openvino",), 5, "edgekit[openvino]"),
    ],
)
def test_doctor_works_without_what_it_looks_for(
    missing: tuple[str, ...], code: int, advice: str, tmp_path: Path
) -> None:
    for name in missing:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})")
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert any(advice in line for line in document["next"])
    assert (document["backends"]["openvino"]["missing"] is None) == (code == 0)
