from __future__ import annotations

import subprocess
import sys

import pytest

from edgekit.backends import backend_names, get_backend
from edgekit.errors import ConfigError
from edgekit.targets import list_targets


def test_every_target_names_a_backend_and_its_engine_table_is_understood() -> None:
    assert {target.backend for target in list_targets()} <= set(backend_names())
    for target in list_targets():
        backend = get_backend(target.backend)
        assert backend.name == target.backend
        for precision in target.precisions:
            assert backend.options(target, precision)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        get_backend("opnvino")
    assert caught.value.hint == "did you mean 'openvino'?"


def test_asking_for_a_backend_imports_no_library() -> None:
    code = (
        "import sys; from edgekit.backends import backend_names, get_backend;"
        "[get_backend(name) for name in backend_names()];"
        "assert not {'openvino', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules), 'imported'"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
