"""Findings on the devices whose texts were recorded; what is installed in Python is made up for each case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.jetson import jetson_findings
from edgekit.runtime.checkup.software import Binding, Software
from edgekit.runtime.jetson.state import look
from edgekit.targets import list_targets
from tests.runtime.jetson.devices import (
    AGX_ORIN_COMPATIBLE,
    BINDINGS_12,
    BINDINGS_13,
    ORIN,
    ORIN_NX_COMPATIBLE,
    THOR,
    jetson,
    recorded,
    software,
    with_nuls,
)

JETPACK_6 = {
    "nvidia-jetpack": "6.2.1+b38",
    "libnvinfer10": "10.3.0.30-1+cuda12.5",
    "python3-libnvinfer": "10.3.0.30-1+cuda12.5",
}
MODES = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
READY = software(tensorrt="10.3.0", binding=BINDINGS_12, gpu=ORIN)


def findings(root: Path, device: dict[str, Any], found: Software) -> dict[str, Finding]:
    state = look(jetson(root, **device))
    assert state is not None
    return {item.topic: item for item in jetson_findings(state, found, list_targets())}


def orin_nano(**changes: Any) -> dict[str, Any]:
    return {
        "model": recorded("orin-nano.model"),
        "compatible": with_nuls(recorded("orin-nano.compatible")),
        "release": recorded("orin-nano.release"),
        "nvpmodel": recorded("orin-nano.nvpmodel"),
        "tegrastats": recorded("orin-nano.tegrastats"),
        "packages": JETPACK_6,
        "pinned": True,
        **changes,
    }


def test_an_orin_nano_that_is_ready(tmp_path: Path) -> None:
    found = findings(tmp_path, orin_nano(), READY)
    assert {item.state for item in found.values()} == {"fits"}
    assert [item.next for item in found.values() if item.next] == []
    assert found["board"].found.endswith("(p3768-0000, p3767-0005): target jetson-orin-nano")
    assert found["JetPack"].found == "JetPack 6.2.1, Jetson Linux (L4T) 36.4.7"
    assert found["TensorRT"].found == "TensorRT 10.3.0, as this JetPack brings it"
    assert found["power mode"].found == "MAXN_SUPER"
    assert found["activity"].found == "GPU 0 % busy, 6 of 6 cores on, the busiest 0 %, hottest gpu 50 °C"
    assert "1,024 MiB of workspace" in found["memory"].found


def test_the_other_boards(tmp_path: Path) -> None:
    nx = {
        "model": recorded("orin-nx.model"),
        "compatible": ORIN_NX_COMPATIBLE,
        "release": recorded("orin-nx.release"),
        "nvpmodel": recorded("orin-nx.nvpmodel"),
        "tegrastats": recorded("orin-nx-busy.tegrastats"),
    }
    found = findings(tmp_path / "nx", nx, software(tensorrt="10.7.0", binding=BINDINGS_12, gpu=ORIN))
    assert found["board"].found.endswith("target jetson-orin-nx")
    assert found["TensorRT"] == Finding(
        topic="TensorRT", found="TensorRT 10.7.0; this JetPack came with 10.3", state="note"
    )
    assert found["JetPack"].state == "note"
    assert found["power mode"].state == "fits"
    assert found["activity"].next == "something else uses the GPU: stop it before measuring"

    agx = {
        "model": recorded("agx-orin.model"),
        "compatible": AGX_ORIN_COMPATIBLE,
        "release": recorded("agx-orin.release"),
        "nvpmodel": recorded("agx-orin.nvpmodel"),
        "tegrastats": recorded("agx-orin.tegrastats"),
        "packages": JETPACK_6,
    }
    found = findings(tmp_path / "agx", agx, READY)
    assert found["board"].found.endswith("target jetson-agx-orin")
    assert found["clocks"].next.startswith("before measuring, pin the clocks: sudo jetson_clocks")

    thor = {
        "model": recorded("thor.model"),
        "compatible": with_nuls(recorded("thor.compatible")),
        "release": recorded("thor-r38.4.release"),
        "nvpmodel": recorded("thor.nvpmodel"),
        "tegrastats": recorded("thor.tegrastats"),
        "gpu": "gpu-gpc-0",
    }
    on_thor = software(python="3.12.3", tensorrt="10.13.3.9", binding=BINDINGS_13, gpu=THOR)
    found = findings(tmp_path / "thor", thor, on_thor)
    assert found["board"].found.endswith("target jetson-thor")
    assert found["TensorRT"].state == found["Python"].state == found["CUDA"].state == "fits"
    assert found["power mode"].state == "note"
    assert "120W" in found["power mode"].found
    assert found["activity"].found == "14 of 14 cores on, the busiest 80 %, hottest tj 37 °C"


@pytest.mark.parametrize(
    ("packages", "isolated", "python", "words"),
    [
        (None, False, "3.10.12", "sudo apt install nvidia-jetpack"),
        (JETPACK_6, True, "3.10.12", "--system-site-packages"),
        (JETPACK_6, False, "3.11.9", "the python3 that JetPack's packages are for"),
    ],
)
def test_a_tensorrt_that_cannot_be_imported(
    packages: Any, isolated: bool, python: str, words: str, tmp_path: Path
) -> None:
    found = findings(tmp_path, orin_nano(packages=packages), software(isolated=isolated, python=python))
    assert found["TensorRT"].state == "problem"
    assert words in found["TensorRT"].next
    assert found["Python"].state == ("fits" if python.startswith("3.10") else "problem")
    assert found["CUDA binding"].next == "for a way to the GPU: python -m pip install 'edgekit[tensorrt]'"


@pytest.mark.parametrize(
    ("release", "tensorrt", "state"),
    [
        ("# R36 (release), REVISION: 3.0, GCID: 1", "8.6.2", "problem"),
        ("# R36 (release), REVISION: 4.7, GCID: 1", "10.3.0", "fits"),
        ("# R36 (release), REVISION: 4.7, GCID: 1", "11.4.1", "problem"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "10.16.1", "fits"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "11.4.1", "problem"),
        ("# R99 (release), REVISION: 1.0, GCID: 1", "10.3.0", "unknown"),
    ],
)
def test_tensorrt_against_jetpack(release: str, tensorrt: str, state: str, tmp_path: Path) -> None:
    device = {"model": "AGX", "compatible": AGX_ORIN_COMPATIBLE, "release": release}
    found = findings(tmp_path, device, software(tensorrt=tensorrt, binding=BINDINGS_12, gpu=ORIN))
    assert found["TensorRT"].state == state
    assert bool(found["TensorRT"].next) == (state == "problem")


def test_tensorrt_11_on_jetpack_7_2_2_is_for_agx_orin_and_thor_alone(tmp_path: Path) -> None:
    device = {"model": "AGX", "compatible": AGX_ORIN_COMPATIBLE, "release": recorded("agx-orin-r39.release")}
    newer = {**device, "packages": {"nvidia-jetpack": "7.2.2-b20"}}
    eleven = software(tensorrt="11.4.1", python="3.12.3", binding=BINDINGS_13, gpu=THOR)
    assert findings(tmp_path / "agx", newer, eleven)["TensorRT"].state == "note"
    nano = {**newer, "compatible": with_nuls(recorded("orin-nano.compatible"))}
    assert findings(tmp_path / "nano", nano, eleven)["TensorRT"].state == "problem"


def test_a_jetpack_that_is_too_old_or_not_told(tmp_path: Path) -> None:
    old = orin_nano(
        model=recorded("orin-nano-r35.model"),
        compatible=with_nuls(recorded("orin-nano-r35.compatible")),
        release=recorded("orin-nano-r35.release"),
        packages=None,
    )
    found = findings(tmp_path / "old", old, software())["JetPack"]
    assert found.state == "problem"
    assert "JetPack 6.1 or later" in found.next
    none = findings(tmp_path / "none", orin_nano(release=None), READY)
    assert none["JetPack"].state == "unknown"
    assert none["TensorRT"].state == "unknown"
    assert "Python" not in none


def test_a_limited_power_mode_names_the_number_of_this_board_s_fastest(tmp_path: Path) -> None:
    found = findings(tmp_path / "listed", orin_nano(nvpmodel="NV Power Mode: 15W\n0\n", modes=MODES), READY)
    assert found["power mode"].state == "note"
    assert found["power mode"].next.endswith("for the fastest: sudo nvpmodel -m 2 (MAXN_SUPER)")
    found = findings(tmp_path / "unlisted", orin_nano(nvpmodel="NV Power Mode: 15W\n0\n"), READY)
    assert found["power mode"].next.endswith("see /etc/nvpmodel.conf")
    assert findings(tmp_path / "silent", orin_nano(nvpmodel=None), READY)["power mode"].state == "unknown"


def test_too_little_memory_for_the_workspace(tmp_path: Path) -> None:
    found = findings(tmp_path, orin_nano(available_kib=816_128), READY)["memory"]
    assert found.state == "problem"
    assert found.found.startswith("797 of 7,620 MiB available")


def test_bindings_that_are_newer_than_the_driver(tmp_path: Path) -> None:
    found = findings(tmp_path, orin_nano(), software(tensorrt="10.3.0", binding=BINDINGS_13, gpu=ORIN))
    assert found["CUDA binding"].next == "a newer driver, or for this one: python -m pip install 'cuda-bindings<13'"
    # pycuda's numbers are years.
    years = software(tensorrt="10.3.0", binding=Binding(name="pycuda", version="2025.1"), gpu=ORIN)
    assert findings(tmp_path / "pycuda", orin_nano(), years)["CUDA binding"].state == "fits"


def test_a_module_without_a_target(tmp_path: Path) -> None:
    other = orin_nano(compatible="nvidia,p3768-0000+p3767-0004\0nvidia,p3767-0004\0nvidia,tegra234\0")
    found = findings(tmp_path, other, READY)
    assert found["board"].state == "note"
    assert found["memory"].state == "note"
    assert "workspace" not in found["memory"].found


def test_a_problem_always_has_a_next_step() -> None:
    with pytest.raises(ValueError, match="without a next step"):
        Finding(topic="x", found="y", state="problem")
