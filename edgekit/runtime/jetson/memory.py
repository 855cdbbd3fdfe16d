"""``/proc/meminfo``: how much memory is free; on a Jetson it is the GPU's too."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["Memory", "parse_memory", "read_memory"]

_FIELD = re.compile(r"^(MemTotal|MemAvailable|SwapFree):\s*(\d+) kB", re.M)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory in MiB: all of it, what can be had without swapping, and free swap."""

    total_mib: int
    available_mib: int
    swap_free_mib: int


def parse_memory(text: str) -> Memory | None:
    """Returns what ``/proc/meminfo`` says, or None where a number is missing.

    Source: proc(5): its kB are KiB.
    """
    found = {name: int(kib) >> 10 for name, kib in _FIELD.findall(text)}
    if len(found) < 3:
        return None
    return Memory(total_mib=found["MemTotal"], available_mib=found["MemAvailable"], swap_free_mib=found["SwapFree"])


def read_memory(sources: Sources) -> Memory | None:
    """Returns the machine's memory, or None."""
    text = sources.text("proc/meminfo")
    return None if text is None else parse_memory(text)
