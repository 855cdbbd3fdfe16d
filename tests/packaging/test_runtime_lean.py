from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What a device must be able to do without: the compiler's libraries.
HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript")

IMPORT = f"""
import importlib.util, json, sys
import edgekit.runtime, edgekit.bundle, edgekit.bench, edgekit.data, edgekit.tasks, edgekit.evaluate, edgekit.cli.main
print(json.dumps({{
    "installed": [name for name in {HEAVY!r} if importlib.util.find_spec(name) is not None],
    "loaded": [name for name in {HEAVY!r} if name in sys.modules],
    "load": callable(edgekit.runtime.load),
}}))
"""

pytestmark = pytest.mark.slow


def test_a_device_needs_neither_torch_nor_onnx(build, empty) -> None:
    empty.install("-c", str(ROOT / "constraints.txt"), f"{build('wheel')}[openvino]")
    assert json.loads(empty.run("-c", IMPORT)) == {"installed": [], "loaded": [], "load": True}

    names = json.loads(empty.run("-m", "edgekit", "targets", "--json"))
    assert "x86-cpu" in json.dumps(names)
    assert "compile" in empty.run("-m", "edgekit", "--help")
    devices = empty.run("-c", "import openvino; print(openvino.Core().available_devices)")
    assert "CPU" in devices
