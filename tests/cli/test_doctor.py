"""``edgekit doctor`` on devices made of recorded texts."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.cli.answer import document_text
from edgekit.cli.doctor import examine
from edgekit.runtime.checkup.software import Binding, Library
from edgekit.runtime.cuda import DeviceFacts
from tests.runtime.jetson.devices import BINDINGS_12, ORIN, jetson, machine, recorded, software, with_nuls


def test_a_jetson_whose_environment_does_not_see_tensorrt(tmp_path: Path) -> None:
    device = jetson(
        tmp_path,
        model=recorded("orin-nano.model"),
        compatible=with_nuls(recorded("orin-nano.compatible")),
        release=recorded("orin-nano.release"),
        nvpmodel="NV Power Mode: 15W\n0\n",
        tegrastats=recorded("orin-nano-busy.tegrastats"),
        packages={"nvidia-jetpack": "6.2.1+b38", "python3-libnvinfer": "10.3.0.30-1+cuda12.5"},
        modes="< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    )
    answer = examine(device, software(isolated=True, binding=BINDINGS_12, gpu=ORIN))
    document = json.loads(document_text(answer.schema, answer.document))
    assert document["jetson"]["l4t"] == "36.4.7"
    assert document["jetson"]["jetpack"] == "6.2.1"
    assert document["jetson"]["clocks_pinned"] is False
    assert document["jetson"]["power_mode"] == {"name": "15W", "number": 0}
    assert document["jetson"]["stats"]["rails"]["VDD_IN"] == {"now_mw": 16321, "mean_mw": 11204}
    assert document["nvidia"]["binding"] == {"name": "cuda-bindings", "version": "12.9.2"}
    states = {finding["topic"]: finding["state"] for finding in document["findings"]}
    assert states["TensorRT"] == "problem"
    assert states["power mode"] == states["clocks"] == states["activity"] == "note"
    assert document["next"][0].startswith("TensorRT: make the environment anew, with the system's packages")
    assert "power mode" in document["next"][1]
    assert answer.exit_code == 0
    text = answer.text
    assert any(line.split() == ["Jetson", "state", "found"] for line in text.splitlines())
    for line in document["next"]:
        assert f"  {line}" in text


def test_an_rtx_machine(tmp_path: Path) -> None:
    device = machine(tmp_path, {"proc/driver/nvidia/version": recorded("pc.kernel-driver")})
    card = DeviceFacts(name="NVIDIA GeForce RTX 4070", compute_capability="8.9", driver="12.4", integrated=False)
    found = software(
        tensorrt_rtx=Library(version="1.7.1.116", cuda=13),
        binding=Binding(name="cuda-bindings", version="13.5.0"),
        gpu=card,
    )
    answer = examine(device, found)
    document = json.loads(document_text(answer.schema, answer.document))
    assert document["jetson"] is None
    assert document["nvidia"]["driver"] == "550.144.03"
    assert document["nvidia"]["gpus"] == [
        {"name": "NVIDIA GeForce RTX 4070", "compute_capability": "8.9", "driver": "12.4", "integrated": False}
    ]
    assert document["next"][:2] == [
        "driver: install a driver of the series 580 or later",
        "CUDA binding: a newer driver, or for this one: python -m pip install 'cuda-bindings<13'",
    ]
    assert any(line.split()[:2] == ["NVIDIA", "state"] for line in answer.text.splitlines())


def test_a_machine_with_nothing_of_nvidia(tmp_path: Path) -> None:
    answer = examine(machine(tmp_path, {}), software())
    assert (answer.document["nvidia"], answer.document["jetson"], answer.document["findings"]) == (None, None, [])
    assert not any(line.startswith(("NVIDIA", "Jetson")) for line in answer.text.splitlines())
    assert not any("CUDA" in line for line in answer.document["next"])
