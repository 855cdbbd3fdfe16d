from __future__ import annotations

import subprocess
import sys

import pytest

import edgekit


def test_the_public_names() -> None:
    assert edgekit.__all__ == ["__version__", "compile"]
    assert dir(edgekit) == ["__version__", "compile"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'complie'"):
        _ = edgekit.complie  # type: ignore[attr-defined]


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgekit; print(sorted({'torch', 'numpy', 'cv2', 'onnx', 'openvino', 'click'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_compile_is_the_compiler_s() -> None:
    from edgekit.compiler import compile as expected

    assert edgekit.compile is expected
