"""What this machine can say about a target, and what a process with a capped instruction set can."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import edgekit
from edgekit.backends import get_backend
from edgekit.compiler.placement import Placement, place
from edgekit.runtime import load
from edgekit.runtime.machine import default_target
from edgekit.targets import load_target
from tests.compiler.world import HERE, World

ROOT = Path(__file__).resolve().parents[2]
with_vnni = pytest.mark.skipif(default_target().name != "x86-cpu", reason="needs an x86 CPU with VNNI")
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86 CPU")


def placed(name: str) -> Placement:
    target = load_target(name)
    return place(target, get_backend(target.backend))


def test_this_machine_is_timed() -> None:
    assert placed(default_target().name) == Placement(verified_on="this device", timed=True)


@on_x86
@pytest.mark.parametrize(("name", "reason"), [("intel-npu", "no NPU"), ("intel-gpu", "no GPU"), ("arm-cpu", "aarch64")])
def test_a_device_that_is_not_here_is_stood_in_for(name: str, reason: str) -> None:
    placement = placed(name)
    if placement.timed:
        pytest.skip("this machine has the device")
    assert placement.verified_on == "CPU in its place"
    assert reason in placement.reason
    assert placement.opens("fp16")


def test_a_board_that_builds_its_engine_opens_nothing_here() -> None:
    assert not placed("jetson").opens("fp16")
    assert placed("jetson").reason == "the device builds the engine"
    assert not placed("rtx").opens("fp16")
    assert placed("rtx").reason == "the device chooses the engine"


@with_vnni
def test_a_clock_that_is_faster_than_the_target_s_does_not_speak_for_it() -> None:
    assert placed("x86-cpu-legacy") == Placement(
        verified_on="this device",
        timed=False,
        reason="this machine is a x86-cpu, so its clock does not speak for x86-cpu-legacy",
    )


def test_a_user_s_own_target_is_known_by_what_it_demands_and_not_by_its_name() -> None:
    target = replace(default_target(), name="kiosk")
    assert place(target, get_backend("openvino")).timed


@on_x86
def test_a_legacy_bundle_has_weights_of_seven_bits_and_opens_here(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        world.net,
        target="x86-cpu-legacy",
        task=world.task,
        data=world.data,
        samples=40,
        precision="int8",
        output=tmp_path / "m.edge",
        threads=1,
    )
    (target,) = report.targets
    (candidate,) = target.candidates
    if HERE == "x86-cpu-legacy":
        assert target.latency == "measured"
        assert candidate.latency is not None
    else:
        assert target.latency == "unverified"
        assert "its clock does not speak for x86-cpu-legacy" in target.why
        assert candidate.latency is None
    assert candidate.accuracy is not None
    assert (candidate.accuracy.kind, candidate.accuracy.value) == ("measured", 1.0)
    bundle = edgekit.bundle.read_bundle(report.output)

    graph = onnx.load_from_string(bundle.read(bundle.manifest.entries[0].graph)).graph
    stored = [onnx.numpy_helper.to_array(item) for item in graph.initializer if item.name.endswith("_quantized")]
    assert len(stored) == 4
    assert max(abs(int(item.min())) for item in stored) <= 63
    assert max(int(item.max()) for item in stored) == 63
    with load(report.output, target="x86-cpu-legacy", threads=1) as model:
        assert model.entry.target == "x86-cpu-legacy"


@on_x86
def test_a_cpu_without_exact_products_stands_in_for_floats_only() -> None:
    code = (
        "from tests.compiler.test_placement import placed\n"
        "for name in ('x86-cpu', 'intel-npu', 'x86-cpu-legacy'):\n"
        "    item = placed(name)\n"
        "    print(name, item.verified_on, item.timed, item.opens('int8'), item.opens('fp32'), sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "x86-cpu|CPU in its place|False|False|True",
        "intel-npu|CPU in its place|False|False|True",
        "x86-cpu-legacy|this device|True|True|True",
    ], done.stderr
