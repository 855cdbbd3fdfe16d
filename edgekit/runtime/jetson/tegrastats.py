"""``tegrastats``: memory, loads, clocks, temperatures and power at one moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["Load", "Rail", "Tegrastats", "parse_tegrastats", "read_tegrastats"]

_MEMORY = re.compile(r"\b(RAM|SWAP) (\d+)/(\d+)MB")
_CPUS = re.compile(r"\bCPU \[([^\]]*)\](?:@(\d+))?")
_CPU = re.compile(r"(\d+)%(?:@(\d+))?")
_LOAD = re.compile(r"\b(EMC_FREQ|GR3D_FREQ) (?:(\d+)%)?(?:@(?:\[([\d,]+)\]|(\d+)))?")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_RAIL = re.compile(r"\b([A-Z]\w*) (-?\d+)mW/(-?\d+)mW")
_SENSOR_OFF_C = -256.0  # what is printed for a sensor whose part of the chip is switched off


@dataclass(frozen=True, kw_only=True)
class Load:
    """How busy something is, and at which clock.

    Attributes:
        percent: Of what it could do at its present clock; None where it is not printed.
        mhz: Its clocks, one for each part that has its own; none where they are not printed, as without root.
    """

    percent: int | None
    mhz: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rail:
    """Power of one supply, in milliwatts: now, and the mean since tegrastats was started."""

    now_mw: int
    mean_mw: int


@dataclass(frozen=True, kw_only=True)
class Tegrastats:
    """One line of tegrastats. What a board or a release does not print is None or left out.

    Attributes:
        ram_used_mib, ram_total_mib: Of the memory that CPU and GPU share.
        swap_used_mib, swap_total_mib: Of swap.
        cpus: One for each core; None for one that is off.
        emc: The memory controller.
        gpu: The GPU (GR3D).
        temperatures_c: Sensor to degrees Celsius, in lower case (releases differ); sensors that are off are left out.
        rails: Supply to its power.
    """

    ram_used_mib: int
    ram_total_mib: int
    swap_used_mib: int | None
    swap_total_mib: int | None
    cpus: tuple[Load | None, ...]
    emc: Load | None
    gpu: Load | None
    temperatures_c: Mapping[str, float]
    rails: Mapping[str, Rail]


def parse_tegrastats(text: str) -> Tegrastats | None:
    """Returns what the first line with memory in it says, or None where there is none.

    Source: NVIDIA Jetson Linux Developer Guide 36.5, "Tegrastats Utility"; the guide's MB are MiB.
    """
    line = next((line for line in text.splitlines() if _MEMORY.search(line) is not None), None)
    if line is None:
        return None
    memory = {name: (int(used), int(total)) for name, used, total in _MEMORY.findall(line)}
    if "RAM" not in memory:
        return None
    swap = memory.get("SWAP")
    loads = {name: _load(percent, several, one) for name, percent, several, one in _LOAD.findall(line)}
    return Tegrastats(
        ram_used_mib=memory["RAM"][0],
        ram_total_mib=memory["RAM"][1],
        swap_used_mib=None if swap is None else swap[0],
        swap_total_mib=None if swap is None else swap[1],
        cpus=_cpus(line),
        emc=loads.get("EMC_FREQ"),
        gpu=loads.get("GR3D_FREQ"),
        temperatures_c={
            name.lower(): float(value) for name, value in _TEMPERATURE.findall(line) if float(value) != _SENSOR_OFF_C
        },
        # Supplies that the board does not connect are printed as NC.
        rails={
            name: Rail(now_mw=int(now), mean_mw=int(mean)) for name, now, mean in _RAIL.findall(line) if name != "NC"
        },
    )


def read_tegrastats(sources: Sources) -> Tegrastats | None:
    """Returns what the machine's tegrastats says now, or None."""
    text = sources.output("tegrastats", "--interval", "500", lines=1)
    return None if text is None else parse_tegrastats(text)


def _cpus(line: str) -> tuple[Load | None, ...]:
    found = _CPUS.search(line)
    if found is None:
        return ()
    loads: list[Load | None] = []
    for part in found[1].split(","):
        core = _CPU.fullmatch(part.strip())
        if core is None:
            loads.append(None)
            continue
        clock = core[2] if core[2] is not None else found[2]  # older releases print one clock for all, behind the list
        loads.append(Load(percent=int(core[1]), mhz=() if clock is None else (int(clock),)))
    return tuple(loads)


def _load(percent: str, several: str, one: str) -> Load:
    clocks = several if several else one
    return Load(
        percent=int(percent) if percent else None,
        mhz=tuple(int(clock) for clock in clocks.split(",")) if clocks else (),
    )
