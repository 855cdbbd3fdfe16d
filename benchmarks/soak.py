"""Many calls in a row, and whether memory stays what it was: on the device and in the process."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from edgekit.runtime.cuda import CudaDevice

__all__ = ["DEVICE_BOUND_BYTES", "RSS_BOUND_BYTES", "Soak", "soak", "used_device_bytes"]

LOOKS = 12
"""How often memory is looked at; the first third of the looks is the time to settle."""

# A device gives memory away in pieces of 2 MiB, and what else runs on it counts too; an allocator of the host grows in
# steps as well. A leak of a few bytes a call shows when there are enough calls.
DEVICE_BOUND_BYTES = 2 << 20
RSS_BOUND_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Soak:
    """What was seen.

    Attributes:
        calls: How many.
        seconds: How long they took, together.
        device_bytes: Memory in use on the whole device, at each look.
        rss_bytes: Resident memory of this process, at each look.
    """

    calls: int
    seconds: float
    device_bytes: tuple[int, ...]
    rss_bytes: tuple[int, ...]

    @property
    def device_growth_bytes(self) -> float:
        """By how much the device's memory grew after settling."""
        return _growth(self.device_bytes)

    @property
    def rss_growth_bytes(self) -> float:
        """By how much the process grew after settling."""
        return _growth(self.rss_bytes)

    @property
    def flat(self) -> bool:
        """Whether neither grew by more than its bound."""
        return self.device_growth_bytes <= DEVICE_BOUND_BYTES and self.rss_growth_bytes <= RSS_BOUND_BYTES

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "calls": self.calls,
            "seconds": self.seconds,
            "device_bytes": list(self.device_bytes),
            "rss_bytes": list(self.rss_bytes),
            "device_growth_bytes": self.device_growth_bytes,
            "rss_growth_bytes": self.rss_growth_bytes,
            "flat": self.flat,
        }


def soak(call: Callable[[], object], device_bytes: Callable[[], int], *, calls: int) -> Soak:
    """Calls over and over, and looks at memory in between.

    Args:
        call: One inference, or one opening and closing.
        device_bytes: Memory in use on the device.
        calls: How many at least: a whole number for each look.
    """
    per_look = max(1, -(-calls // LOOKS))
    device, resident, seconds = [], [], 0.0
    for _ in range(LOOKS):
        started = perf_counter()
        for _ in range(per_look):
            call()
        seconds += perf_counter() - started
        gc.collect()
        device.append(device_bytes())
        resident.append(_rss_bytes())
    return Soak(calls=LOOKS * per_look, seconds=seconds, device_bytes=tuple(device), rss_bytes=tuple(resident))


def used_device_bytes(device: CudaDevice) -> int:
    """Returns how much of the device's memory is in use, by whomever.

    Source: CUDA Driver API, cuMemGetInfo.

    Raises:
        RuntimeError: The driver refuses.
    """
    with device.current():
        if importlib.util.find_spec("cuda") is not None:
            from cuda.bindings import driver

            code, free, total = driver.cuMemGetInfo()
            if int(code) != 0:
                raise RuntimeError(f"cuMemGetInfo failed: {code}")
        else:
            import pycuda.driver

            free, total = pycuda.driver.mem_get_info()
    return int(total) - int(free)


def _rss_bytes() -> int:
    """Source: proc(5), /proc/self/statm: the second number is the resident set in pages."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _growth(looks: tuple[int, ...]) -> float:
    """The median of the last third over that of the second one."""
    third = len(looks) // 3
    return float(median(looks[-third:]) - median(looks[third : 2 * third]))
