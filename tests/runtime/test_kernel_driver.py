from __future__ import annotations

import pytest

from edgekit.runtime.cuda.kernel_driver import parse_kernel_driver
from tests.runtime.jetson.devices import recorded


@pytest.mark.parametrize(
    ("name", "version"), [("orin-nano", "540.4.0"), ("pc", "550.144.03"), ("pc-closed", "550.163.01")]
)
def test_the_driver_of_real_machines(name: str, version: str) -> None:
    assert parse_kernel_driver(recorded(f"{name}.kernel-driver")) == version


@pytest.mark.parametrize("text", ["", "GCC version:  gcc version 12.3.0\n", "NVRM version: something else\n"])
def test_a_text_that_names_no_driver_is_none(text: str) -> None:
    assert parse_kernel_driver(text) is None
