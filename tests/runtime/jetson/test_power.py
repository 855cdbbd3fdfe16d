from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.runtime.jetson.power import PowerMode, parse_power_mode, parse_power_modes, read_power_mode
from tests.runtime.jetson.devices import machine, recorded


@pytest.mark.parametrize(
    ("name", "mode", "number", "unlimited"),
    [
        ("orin-nano", "MAXN_SUPER", 2, True),
        ("orin-nx", "MAXN_SUPER", 0, True),
        ("orin-verbose", "40W", 4, False),
        ("agx-orin", "MAXN", 0, True),
        ("thor", "120W", 1, False),
        ("thor-maxn", "MAXN", 0, True),
    ],
)
def test_the_mode_of_real_devices(name: str, mode: str, number: int, unlimited: bool) -> None:
    found = parse_power_mode(recorded(f"{name}.nvpmodel"))
    assert found == PowerMode(name=mode, number=number)
    assert found.unlimited is unlimited


def test_a_mode_without_its_number_and_after_other_lines() -> None:
    assert parse_power_mode("NV Fan Mode:quiet\nNV Power Mode: 15W\n") == PowerMode(name="15W", number=None)
    assert parse_power_mode("NV Power Mode: 15W\nNVPM WARN: 3 things\n") == PowerMode(name="15W", number=None)


@pytest.mark.parametrize("text", ["", "NV Power Mode:\n", "NVPM ERROR: Error opening /var/lib/nvpmodel/status: 2\n"])
def test_a_text_that_names_no_mode_is_none(text: str) -> None:
    assert parse_power_mode(text) is None


def test_the_modes_of_a_configuration() -> None:
    text = "# a comment\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
    text += "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=0 >\n"
    assert parse_power_modes(text) == (PowerMode(name="15W", number=0), PowerMode(name="MAXN_SUPER", number=2))
    assert parse_power_modes("nothing") == ()


def test_where_there_is_no_nvpmodel(tmp_path: Path) -> None:
    assert read_power_mode(machine(tmp_path, {})) is None
