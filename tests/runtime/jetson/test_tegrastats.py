from __future__ import annotations

import re

import pytest

from edgekit.runtime.jetson.tegrastats import Load, Rail, parse_tegrastats
from tests.runtime.jetson.devices import RECORDED, recorded

LINES = sorted(path.name.removesuffix(".tegrastats.txt") for path in RECORDED.glob("*.tegrastats.txt"))


@pytest.mark.parametrize("name", LINES)
def test_every_real_line_is_read_whole(name: str) -> None:
    line = recorded(f"{name}.tegrastats")
    stats = parse_tegrastats(line)
    assert stats is not None
    assert 0 < stats.ram_used_mib < stats.ram_total_mib
    assert len(stats.cpus) == line.split("CPU [")[1].split("]")[0].count(",") + 1
    assert all(load is not None and len(load.mhz) == 1 for load in stats.cpus)
    assert len(stats.rails) == line.count("mW/") - line.count("NC 0mW")
    assert len(stats.temperatures_c) == len(re.findall(r"@[\d.]+C\b", line))
    assert all(20 < value < 60 for value in stats.temperatures_c.values())
    assert "tj" in stats.temperatures_c
    assert (stats.swap_total_mib is not None) == ("SWAP" in line)
    assert (stats.gpu is not None) == ("GR3D_FREQ" in line)
    assert (stats.emc is not None) == ("EMC_FREQ" in line)


@pytest.mark.parametrize(
    ("name", "gpu", "emc"),
    [
        ("orin-nano", Load(percent=0, mhz=(305,)), Load(percent=15, mhz=(204,))),
        ("orin-nano-busy", Load(percent=99, mhz=(612,)), Load(percent=61, mhz=(2133,))),
        ("orin-nx-busy", Load(percent=60), None),
        ("agx-orin", Load(percent=0), None),
        ("agx-orin-root", Load(percent=0, mhz=(0, 0)), Load(percent=3, mhz=(2133,))),
        ("thor", None, None),
        ("thor-root", Load(percent=None, mhz=(0, 0, 0)), Load(percent=0, mhz=(665,))),
    ],
)
def test_gpu_and_memory_controller(name: str, gpu: Load | None, emc: Load | None) -> None:
    """Loads come with clocks or without, and on a Thor not at all, or without a percentage."""
    stats = parse_tegrastats(recorded(f"{name}.tegrastats"))
    assert stats is not None
    assert (stats.gpu, stats.emc) == (gpu, emc)


def test_the_numbers_of_one_line() -> None:
    stats = parse_tegrastats(recorded("orin-nano-busy.tegrastats"))
    assert stats is not None
    assert (stats.ram_used_mib, stats.ram_total_mib) == (6712, 7620)
    assert (stats.swap_used_mib, stats.swap_total_mib) == (369, 3810)
    assert stats.cpus[:2] == (Load(percent=38, mhz=(1497,)), Load(percent=2, mhz=(729,)))
    assert stats.temperatures_c["tj"] == 58.312
    assert stats.rails["VDD_IN"] == Rail(now_mw=16321, mean_mw=11204)


def test_sensors_that_are_off_and_supplies_that_are_not_connected_are_left_out() -> None:
    stats = parse_tegrastats(recorded("agx-orin-sensors-off.tegrastats"))
    assert stats is not None
    assert set(stats.temperatures_c) == {"cpu", "tboard", "soc2", "tdiode", "soc0", "tj", "soc1"}
    assert set(stats.rails) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_cores_that_are_off_one_clock_for_all_and_negative_power() -> None:
    stats = parse_tegrastats("RAM 2690/6854MB (lfb 6x1MB) CPU [3%@1904,off] NEW_ENGINE 7%@12 VDD_GPU -392mW/0mW")
    assert stats is not None
    assert stats.cpus == (Load(percent=3, mhz=(1904,)), None)
    assert stats.rails == {"VDD_GPU": Rail(now_mw=-392, mean_mw=0)}
    older = parse_tegrastats("RAM 1/2MB (lfb 1x4MB) CPU [5%,6%]@1734")
    assert older is not None
    assert older.cpus == (Load(percent=5, mhz=(1734,)), Load(percent=6, mhz=(1734,)))


def test_the_first_line_that_says_something_is_read() -> None:
    text = "tegrastats: a banner\n" + recorded("thor.tegrastats") + recorded("orin-nano.tegrastats")
    stats = parse_tegrastats(text)
    assert stats is not None
    assert stats.ram_total_mib == 125772


@pytest.mark.parametrize("text", ["", "\n", "tegrastats: command not found", "SWAP 0/12MB", "RAM x/yMB", "CPU [1%@1]"])
def test_a_text_that_is_no_line_of_it_is_none(text: str) -> None:
    assert parse_tegrastats(text) is None
