"""sysfs: between which clocks CPU and GPU may move; ``jetson_clocks`` leaves them none to choose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["ClockRange", "Clocks", "read_clocks"]

# JetPack 6 calls it 17000000.gpu (JetPack 5: 17000000.ga10b), JetPack 7 on Thor gpu-gpc-0 and so on.
_GPU = re.compile(r"(\.gpu|\.ga10b|gpu-gpc-\d+)$")


@dataclass(frozen=True, kw_only=True)
class ClockRange:
    """The clocks that the governor of one device may choose from, in MHz."""

    low_mhz: float
    high_mhz: float

    @property
    def pinned(self) -> bool:
        """Whether there is nothing to choose."""
        return self.low_mhz == self.high_mhz


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """The clock ranges of the cores that are on, and of the GPU's parts; none where sysfs does not say."""

    cpus: tuple[ClockRange, ...]
    gpus: tuple[ClockRange, ...]

    @property
    def pinned(self) -> bool | None:
        """Whether all are, as ``jetson_clocks`` does it; None where CPU or GPU cannot be read.

        Source: ``jetson_clocks --show`` prints equal MinFreq and MaxFreq for every core and the GPU once it has run.
        """
        if not self.cpus or not self.gpus:
            return None
        return all(clock.pinned for clock in (*self.cpus, *self.gpus))


def read_clocks(sources: Sources) -> Clocks:
    """Reads the ranges below ``/sys``; a core that is off has none."""
    cpus = sources.folders("sys/devices/system/cpu/cpu[0-9]*/cpufreq")
    gpus = [path for path in sources.folders("sys/class/devfreq/*") if _GPU.search(path) is not None]
    return Clocks(
        cpus=_ranges(sources, cpus, "scaling_min_freq", "scaling_max_freq", per_mhz=1e3),
        gpus=_ranges(sources, gpus, "min_freq", "max_freq", per_mhz=1e6),
    )


def _ranges(
    sources: Sources, folders: tuple[str, ...] | list[str], low: str, high: str, *, per_mhz: float
) -> tuple[ClockRange, ...]:
    found = []
    for folder in folders:
        least, most = (sources.number(f"{folder}/{name}") for name in (low, high))
        if least is not None and most is not None:
            found.append(ClockRange(low_mhz=least / per_mhz, high_mhz=most / per_mhz))
    return tuple(found)
