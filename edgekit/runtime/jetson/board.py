"""The device tree: which board and which module this is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["Board", "parse_board", "read_board"]

_PART = re.compile(r"p\d{4}-\d{4}")
_SOC = re.compile(r"^nvidia,(tegra\d+)$")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board with an NVIDIA Tegra.

    Attributes:
        model: Its name, as the device tree has it; it is free text of whoever made the board, and may be empty.
        compatible: What it says it is compatible with, the most specific first.
        parts: Part numbers of carrier and module in these, such as ``p3767-0005``.
        soc: The chip, such as ``tegra234`` (Orin) or ``tegra264`` (Thor).
    """

    model: str
    compatible: tuple[str, ...]
    parts: tuple[str, ...]
    soc: str


def parse_board(model: str, compatible: str) -> Board | None:
    r"""Returns the board that the device tree describes, or None where it has no Tegra.

    Args:
        model: Text of ``/proc/device-tree/model``; empty where there is none.
        compatible: Text of ``/proc/device-tree/compatible``: names that end with NUL. Where it was copied from a
            terminal the NULs are lost, which is understood too.

    >>> parse_board("A board\0", "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0").parts
    ('p3768-0000', 'p3767-0005')
    """
    names = compatible.replace("\0", " ").replace("nvidia,", " nvidia,").split()
    chips = [found[1] for name in names if (found := _SOC.match(name)) is not None]
    if not chips:
        return None
    parts = tuple(dict.fromkeys(part for name in names for part in _PART.findall(name)))
    # The most specific chip comes first: older trees add a family, such as tegra23x, after it.
    return Board(model=model.strip("\0\n "), compatible=tuple(names), parts=parts, soc=chips[0])


def read_board(sources: Sources) -> Board | None:
    """Returns the machine's board, or None where it is no Tegra."""
    model, compatible = (sources.text(f"proc/device-tree/{name}") for name in ("model", "compatible"))
    return None if compatible is None else parse_board("" if model is None else model, compatible)
