"""Files of the system: memory, clocks, packages, the CUDA toolkit; and the seam through which all texts come."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edgekit.runtime.jetson.clocks import ClockRange, read_clocks
from edgekit.runtime.jetson.memory import Memory, parse_memory, read_memory
from edgekit.runtime.jetson.packages import parse_packages, parse_toolkit, read_packages
from edgekit.runtime.jetson.sources import Sources, run_command
from edgekit.runtime.jetson.state import look
from tests.runtime.jetson.devices import PACKAGE, jetson, machine, recorded, with_nuls


def test_memory() -> None:
    text = "MemTotal:        7802880 kB\nMemAvailable:     816128 kB\nHugePages_Total:       0\nSwapFree:       0 kB\n"
    assert parse_memory(text) == Memory(total_mib=7620, available_mib=797, swap_free_mib=0)
    assert parse_memory("MemTotal: 12 kB\n") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of this machine")
def test_memory_of_this_machine() -> None:
    memory = read_memory(Sources())
    assert memory is not None
    assert 0 < memory.available_mib <= memory.total_mib


@pytest.mark.parametrize("gpu", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0"])
def test_clocks_are_pinned_or_move(gpu: str, tmp_path: Path) -> None:
    board = {"model": "A board", "compatible": "nvidia,tegra234\0", "release": None}
    moving = read_clocks(jetson(tmp_path / "moving", **board, gpu=gpu))
    assert moving.pinned is False
    assert moving.cpus == (ClockRange(low_mhz=729.6, high_mhz=1728.0),)
    assert moving.gpus == (ClockRange(low_mhz=306.0, high_mhz=1020.0),)
    assert read_clocks(jetson(tmp_path / "pinned", **board, gpu=gpu, pinned=True)).pinned is True


def test_clocks_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    assert read_clocks(machine(tmp_path, {})).pinned is None
    core = "sys/devices/system/cpu/cpu0/cpufreq/scaling_"
    garbled = machine(tmp_path, {f"{core}min_freq": "<unsupported>\n", f"{core}max_freq": "1728000\n"})
    assert read_clocks(garbled).cpus == ()


def test_packages_that_are_installed() -> None:
    removed = "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.6.2.3-1+cuda12.2\n"
    other = PACKAGE.format("libnvinfer-samples", "10.3.0.26-1+cuda12.5")
    wanted = {"nvidia-jetpack": "6.2.1+b38", "libnvinfer10": "10.3.0.30-1+cuda12.5"}
    text = "\n".join([removed, other, *(PACKAGE.format(*item) for item in wanted.items())])
    assert parse_packages(text) == wanted
    assert parse_packages("") == {}


def test_packages_where_there_is_no_dpkg(tmp_path: Path) -> None:
    assert read_packages(machine(tmp_path, {})) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cuda": {"version": 12}}', '{"cuda": "12"}'])
def test_a_toolkit_that_does_not_say_its_version_is_none(text: str) -> None:
    assert parse_toolkit(text) is None


def test_a_command_that_never_ends_is_ended_after_its_line() -> None:
    code = "import time\nfor n in range(10**6): print('line', n, flush=True); time.sleep(0.05)"
    started = time.monotonic()
    assert run_command([sys.executable, "-c", code], 1) == "line 0\n"
    assert time.monotonic() - started < 5


def test_a_command_that_is_silent_is_ended_in_time() -> None:
    started = time.monotonic()
    assert run_command([sys.executable, "-c", "import time; time.sleep(60)"], 1, limit_s=0.5) == ""
    assert time.monotonic() - started < 5


def test_a_command_that_is_not_there_says_nothing() -> None:
    assert run_command(["no-such-program-anywhere"]) is None
    assert run_command([sys.executable, "-c", "print('all'); print('of it')"]) == "all\nof it\n"


def test_a_machine_without_a_tegra_is_no_jetson(tmp_path: Path) -> None:
    assert look(machine(tmp_path, {"etc/os-release": "NAME=Ubuntu\n"})) is None


def test_a_jetson_that_says_nothing_else_is_still_one(tmp_path: Path) -> None:
    """As in a container that has the device tree and little more."""
    found = look(machine(tmp_path, {"proc/device-tree/compatible": with_nuls(recorded("thor.compatible"))}))
    assert found is not None
    assert (found.release, found.jetpack, found.power_mode, found.memory, found.stats) == (None, None, None, None, None)
    assert found.clocks.pinned is None


def test_the_package_says_jetpack_s_version_more_exactly_than_the_release(tmp_path: Path) -> None:
    found = look(
        jetson(
            tmp_path,
            model="A board",
            compatible="nvidia,tegra234\0",
            release="# R36 (release), REVISION: 5.9, GCID: 1\n",
            packages={"nvidia-jetpack": "6.2.3+b81"},
        )
    )
    assert found is not None
    assert found.jetpack == "6.2.3"
