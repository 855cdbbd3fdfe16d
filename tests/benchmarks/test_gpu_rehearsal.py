"""The whole GPU benchmark on a pretended GPU with random weights: that it runs through, and nothing of a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

pytest.importorskip("scipy")

import edgekit
from benchmarks import gpu, gpu_trial, gpu_worker
from benchmarks.cifar import read_spec
from benchmarks.gpu_report import to_markdown
from benchmarks.gpu_worker import AGAIN, ORT, TORCH, side_name
from benchmarks.models.resnet_cifar import CifarResNet
from benchmarks.record import SCHEMA
from benchmarks.trained import NETWORKS
from edgekit.runtime.tensorrt import TENSORRT_RTX
from tests.gpu.grounds import STAND_IN_VERSION, environment, pretended_driver
from tests.runtime.nvidia import Gpu, install
from tests.runtime.pretended_tensorrt import stand_in_builder, tensorrt

pytestmark = pytest.mark.slow

SHALLOW = """
from benchmarks.models.resnet_cifar import CifarResNet
def network():
    return CifarResNet(1, 10)
"""
TESTS = {"passed": 1, "failures": {}, "skips": {}}
QUICK = ["--samples", "20", "--processes", "2", "--blocks", "2", "--calls", "2", "--settle", "0", "--warm-up", "0.01"]


def shallow() -> nn.Module:
    return CifarResNet(1, 10)


@pytest.fixture
def fake_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """TensorRT-RTX and a driver, both pretended; TensorRT is not there."""
    made = Gpu()
    (tmp_path / "stand-ins").mkdir()
    stand_in_builder(tmp_path / "stand-ins", TENSORRT_RTX.package)
    install(monkeypatch, {"pycuda": None, "tensorrt": None, **pretended_driver(made)})
    install(monkeypatch, tensorrt(made, TENSORRT_RTX.package, None, version=STAND_IN_VERSION))
    for name, value in environment(tmp_path / "stand-ins").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gpu, "run_tests", lambda **_: TESTS)
    # Peers are missing here, also on a machine that has them.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    # The flow is that of the large network: one block a stage, and the recipe that is done in seconds.
    (tmp_path / "shallow.py").write_text(SHALLOW)
    changed = {"arch": "shallow:network", "arch_path": tmp_path, "recipe": "fast"}
    compile_large = edgekit.compile
    monkeypatch.setattr(edgekit, "compile", lambda *given, **keys: compile_large(*given, **{**keys, **changed}))
    monkeypatch.setattr(gpu_worker, "_NETWORK", replace(NETWORKS["resnet56"], build=shallow))
    monkeypatch.setattr(gpu_worker, "float_module", lambda path: shallow())
    return made


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    torch.save({"state_dict": shallow().state_dict()}, tmp_path / "weights.th")
    generator = np.random.default_rng(0)
    for folder, count in (("data", 4), ("test", 2)):
        for label in read_spec().labels:  # type: ignore[attr-defined]
            (tmp_path / folder / label).mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / folder / label / f"{number}.png"), image)
    given = {"checkpoint": "weights.th", "data": "data", "test": "test"}
    return [word for name, path in given.items() for word in (f"--{name}", str(tmp_path / path))]


def in_this_process(module: str, task: dict[str, Any], *, limit_s: float | None = None) -> dict[str, Any]:
    """What a fresh process would answer, by the same JSON."""
    assert module == "gpu_worker"
    answered: dict[str, Any] = json.loads(json.dumps(gpu_worker.run(json.loads(json.dumps(task)))))
    return answered


def run(folder: Path, inputs: list[str], *options: str) -> tuple[int, dict[str, Any]]:
    output = folder / "gpu.json"
    code = gpu.main(
        [*inputs, *QUICK, "--soak", "24", "--work", str(folder / "work"), "--output", str(output), *options]
    )
    return code, json.loads(output.read_text(encoding="utf-8"))


def test_every_part_runs_and_is_recorded(
    fake_gpu: Gpu,
    inputs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu, "run_fresh", in_this_process)
    monkeypatch.setattr(gpu, "refusal", gpu_trial.attempt)
    code, result = run(tmp_path, inputs)
    assert (result["schema"], result["benchmark"]) == (SCHEMA, "gpu")
    results = result["results"]
    assert code == (0 if results["kept"] else 1)
    assert results["gpu"]["name"] == "Pretended GPU"
    assert results["float"]["images"] == 20
    assert results["targets"]["nvidia-gpu"] == {"missing": "TensorRT is not installed"}
    rtx = results["targets"]["rtx"]
    assert rtx["refused"] == ""
    assert set(rtx["engines"]) == {"int8", "fp16"}
    for engine in rtx["engines"].values():
        assert engine["golden_rel_l2"] <= engine["golden_bound"]
        assert engine["drop"]["low"] <= engine["drop"]["estimate"] <= engine["drop"]["high"]
        assert engine["builder"] == f"TensorRT-RTX {STAND_IN_VERSION}"
    assert rtx["soak"]["calls"] == 24
    int8, fp16 = side_name("rtx", "int8"), side_name("rtx", "fp16")
    latency = results["latency"]
    assert set(latency["time_us"]) == {int8, fp16, f"{int8}{AGAIN}"}
    assert latency["best"] in (int8, fp16)
    assert set(latency["missing"]) == {TORCH, ORT}
    assert "finds no GPU" in latency["missing"][TORCH]
    assert "CUDAExecutionProvider" in latency["missing"][ORT]
    assert results["tests"] == TESTS
    text = capsys.readouterr().out
    assert to_markdown(result) in text
    assert "rtx-int8-accuracy: done" in text
    assert str(tmp_path) not in json.dumps(results)
    assert (fake_gpu.live, fake_gpu.retained) == ({}, 0)

    def never(*_: Any, **__: Any) -> dict[str, Any]:
        raise AssertionError("a finished part was run again")

    monkeypatch.setattr(gpu, "run_fresh", never)
    monkeypatch.setattr(gpu, "run_tests", never)
    assert run(tmp_path, inputs)[1]["results"] == results


def test_a_refusal_is_recorded_and_nothing_is_compiled(
    fake_gpu: Gpu, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def only_float(module: str, task: dict[str, Any], *, limit_s: float | None = None) -> dict[str, Any]:
        done.append(task["do"])
        return in_this_process(module, task)

    monkeypatch.setattr(gpu, "run_fresh", only_float)
    monkeypatch.setattr(gpu, "refusal", lambda flavour: "SM 90 is not supported")
    code, result = run(tmp_path, inputs)
    assert code == 0
    assert done == ["float"]
    assert result["results"]["targets"]["rtx"] == {"library": "TensorRT-RTX", "refused": "SM 90 is not supported"}
    assert "nothing to compare" in result["results"]["latency"]["failed"]


def test_a_process_that_dies_ends_its_part_alone(
    fake_gpu: Gpu, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(module: str, task: dict[str, Any], *, limit_s: float | None = None) -> dict[str, Any]:
        if task["do"] == "compile":
            raise RuntimeError("benchmarks.gpu_worker ended with -11:\n")
        return in_this_process(module, task)

    monkeypatch.setattr(gpu, "run_fresh", dies)
    monkeypatch.setattr(gpu, "refusal", lambda flavour: "")
    _, result = run(tmp_path, inputs)
    assert result["results"]["targets"]["rtx"]["failed"].startswith("benchmarks.gpu_worker ended with -11")
    assert "not compiled" in to_markdown(result)


def test_the_trial_says_what_a_library_says(fake_gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_trial.attempt(TENSORRT_RTX) == ""
    monkeypatch.setenv("WORKSPACE_MIB", "1")
    assert "builds no engine" in gpu_trial.attempt(TENSORRT_RTX)
