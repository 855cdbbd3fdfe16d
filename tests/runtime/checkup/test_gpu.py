from __future__ import annotations

import pytest

from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.gpu import gpu_findings
from edgekit.runtime.checkup.software import Binding, Library, Software, installed_software
from edgekit.runtime.cuda import DeviceFacts
from edgekit.targets import list_targets
from tests.runtime.jetson.devices import BINDINGS_13, software

RTX_LIBRARY = Library(version="1.7.1.116", cuda=13)


def gpu(capability: str, driver: str = "13.0") -> DeviceFacts:
    return DeviceFacts(name="A card", compute_capability=capability, driver=driver, integrated=False)


def findings(found: Software, driver: str | None = "580.82.07") -> dict[str, Finding]:
    return {item.topic: item for item in gpu_findings(driver, found, list_targets())}


def test_where_there_is_no_driver_nothing_is_said() -> None:
    assert gpu_findings(None, software(tensorrt_rtx=RTX_LIBRARY), list_targets()) == ()


def test_an_rtx_machine_that_is_ready() -> None:
    found = findings(software(tensorrt_rtx=RTX_LIBRARY, binding=BINDINGS_13, gpu=gpu("12.0")))
    assert {topic: item.state for topic, item in found.items()} == {
        "driver": "fits",
        "GPU": "fits",
        "TensorRT-RTX": "fits",
        "CUDA binding": "fits",
        "TensorRT": "note",
    }
    assert found["driver"].found == "580.82.07, CUDA 13.0"
    assert found["GPU"].found == "A card, compute capability 12.0: target rtx"
    assert [item.next for item in found.values() if item.next] == []


@pytest.mark.parametrize(
    ("capability", "state", "words"),
    [
        ("7.5", "problem", 'engine.compute_capabilities = ["7.5"]'),
        ("8.6", "fits", ""),
        ("8.9", "fits", ""),
        ("9.0", "note", "compile for nvidia-gpu"),
        ("6.1", "note", "compile for nvidia-gpu"),
    ],
)
def test_compute_capability_against_the_targets(capability: str, state: str, words: str) -> None:
    found = findings(software(tensorrt_rtx=RTX_LIBRARY, binding=BINDINGS_13, gpu=gpu(capability)))["GPU"]
    assert found.state == state
    assert words in found.next


def test_a_driver_that_is_older_than_the_wheels() -> None:
    old = software(
        tensorrt_rtx=RTX_LIBRARY, binding=Binding(name="cuda-bindings", version="12.9.2"), gpu=gpu("8.9", "12.4")
    )
    found = findings(old, "550.144.03")
    assert found["driver"].state == "problem"
    assert found["driver"].next == "install a driver of the series 580 or later"
    assert found["CUDA binding"].state == "fits"


def test_a_driver_that_cannot_be_asked() -> None:
    found = findings(software(tensorrt_rtx=RTX_LIBRARY))
    assert found["driver"].state == "unknown"
    assert found["CUDA binding"].state == "problem"
    silent = findings(software(tensorrt_rtx=RTX_LIBRARY, binding=BINDINGS_13))
    assert silent["CUDA binding"].found == "cuda-bindings 13.0.3; there is no NVIDIA driver on this machine"


def test_a_missing_library() -> None:
    found = findings(software(binding=BINDINGS_13, gpu=gpu("8.9")))["TensorRT-RTX"]
    assert found.next == "to run bundles for rtx: python -m pip install 'edgekit[rtx]'"


def test_this_python_is_described_whatever_it_has() -> None:
    found = installed_software()
    assert found.python.count(".") == 2
    assert (found.gpus == ()) == bool(found.gpu_problem)
    for library in (found.tensorrt, found.tensorrt_rtx):
        assert (library.version is None) == bool(library.reason)
