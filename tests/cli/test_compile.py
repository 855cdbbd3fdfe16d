from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.bundle import read_bundle
from edgekit.cli.main import main
from tests.cli.conftest import Workshop

ROOT = Path(__file__).resolve().parents[2]


def test_json_reports_candidates_and_what_was_shipped(
    workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.edge"
    options = ["--data", str(workshop.data), "--samples", "40", "--threads", "1", "--no-timing", "--golden", "2"]
    assert main(["compile", *workshop.source, *options, "-o", str(output), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "edgekit.compile/1"
    assert document["output"] == str(output)
    (target,) = document["targets"]
    candidates = {candidate["precision"]: candidate for candidate in target["candidates"]}
    assert {"int8", "fp32"} <= set(candidates)
    assert [name for name, item in candidates.items() if item["status"] == "shipped"] == target["shipped"]
    assert target["why"]
    assert target["latency"] == "unverified"
    assert candidates["int8"]["accuracy"]["value"] > 0.9
    assert candidates["int8"]["layer_counts"].get("int8", 0) >= 1
    assert candidates["int8"]["engine_bytes"] > 0
    assert document["data"]["calibration"] == 40
    assert read_bundle(output).manifest.content_digest == document["content_digest"]


def test_options_reach_the_compiler(workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "fp32.edge"
    options = [
        "--precision",
        "fp32",
        "--dynamic-batch",
        "--no-timing",
        "--arch-arg",
        "width=8",
        "--target",
        "x86-cpu-legacy",
    ]
    assert main(["compile", *workshop.source, *options, "-o", str(output)]) == 0
    (entry,) = read_bundle(output).manifest.entries
    assert (entry.target, entry.precision, entry.inputs[0].shape[0]) == ("x86-cpu-legacy", "fp32", None)
    assert "ships fp32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--batch", "a"], "batch: expected a number of images, or smallest/best/largest, got 'a'"),
        (["--batch", "0"], "batch: expected 1 <= smallest <= best <= largest"),
        (["--batch", "4/1/2"], "got 4/1/2"),
        (["--batch", "4/8/16"], "the smallest must be 1"),
        (["--batch", "8", "--dynamic-batch"], "exclude each other"),
        (["--batch", "8", "--target", "intel-npu"], "OpenVINO's NPU takes engines of one batch size only"),
        (["--target", "jetsn"], "did you mean 'jetson'"),
        (["--recipe", "defalt"], "default"),
        (["--data", "nowhere"], "nowhere"),
        (["--arch-arg", "width=16"], "conv"),
        (["--arch", "brightness:brightnes"], "brightnes"),
    ],
)
def test_a_wrong_input_names_itself_and_writes_nothing(
    change: list[str], expected: str, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.edge"
    output.write_text("the old file")
    assert main(["compile", *workshop.source, "--data", str(workshop.data), *change, "-o", str(output)]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.edge"]
    assert output.read_text() == "the old file"


def test_a_batch_reaches_every_target(workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "batch.edge"
    options = ["--precision", "fp16", "--no-timing", "--batch", "1/4/16", "--target", "jetson", "--target", "arm-cpu"]
    assert main(["compile", *workshop.source, *options, "-o", str(output)]) == 0
    board, cpu = read_bundle(output).manifest.entries
    assert (board.options["batch"], board.inputs[0].shape[0], cpu.inputs[0].shape[0]) == ([1, 4, 16], None, None)
    assert "OpenVINO has no best batch size" in capfd.readouterr().out
    assert main(["inspect", str(output)]) == 0
    assert "batch: engines take up to 16 images at once and are tuned for 4" in capfd.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_what_is_no_model_is_refused(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.pt"
    if content is not None:
        model.write_bytes(content)
    assert main(["compile", str(model)]) == 2
    assert str(model) in capsys.readouterr().err


def test_without_torch_the_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "compile", "model.pt"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert "pip install 'edgekit[compile]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_leaves_the_old_file(workshop: Workshop, tmp_path: Path) -> None:
    output, started = tmp_path / "model.edge", tmp_path / "started"
    output.write_text("the old file")
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\ndef build():\n    pathlib.Path({str(started)!r}).touch()\n    time.sleep(60)\n"
    )
    words = ["compile", str(workshop.folder / "weights.pt"), "--arch", "slow:build", "--arch-path", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", *words, "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while not started.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    # Python may end by the signal itself where C code ran Python when it came; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "Traceback" not in errors
    assert output.read_text() == "the old file"
    assert not list(tmp_path.glob(".edgekit-*"))
