"""``nvpmodel``: the power mode that a Jetson is in, and those that it has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["PowerMode", "parse_power_mode", "parse_power_modes", "read_power_mode", "read_power_modes"]

# With --verbose the line begins with "NVPM VERB: Current mode: "; errors of other kinds may come before and after.
_CURRENT = re.compile(r"NV Power Mode:[ \t]*(\S+)[ \t]*(?:\n[ \t]*(\d+)[ \t]*$)?", re.M)
_DEFINED = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.M)


@dataclass(frozen=True, kw_only=True)
class PowerMode:
    """A power mode: a limit on clocks and cores.

    Attributes:
        name: Such as ``MAXN``, ``MAXN_SUPER`` or ``15W``.
        number: What ``nvpmodel -m`` takes; the same name has other numbers on other boards. None where it is not said.
    """

    name: str
    number: int | None

    @property
    def unlimited(self) -> bool:
        """Whether it is the mode without a power limit: MAXN, or MAXN_SUPER where the board has that."""
        return self.name.upper().startswith("MAXN")


def parse_power_mode(text: str) -> PowerMode | None:
    r"""Returns the mode that ``nvpmodel -q`` names, or None where it names none.

    >>> parse_power_mode("NV Power Mode: MAXN\n0\n")
    PowerMode(name='MAXN', number=0)
    """
    found = _CURRENT.search(text)
    if found is None:
        return None
    return PowerMode(name=found[1], number=None if found[2] is None else int(found[2]))


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """Returns the modes that ``/etc/nvpmodel.conf`` defines, in its order; none where it defines none.

    >>> [mode.name for mode in parse_power_modes("< POWER_MODEL ID=0 NAME=15W >")]
    ['15W']
    """
    return tuple(PowerMode(name=name, number=int(number)) for number, name in _DEFINED.findall(text))


def read_power_mode(sources: Sources) -> PowerMode | None:
    """Returns the machine's power mode; None where there is no nvpmodel, or it does not say."""
    text = sources.output("nvpmodel", "-q")
    return None if text is None else parse_power_mode(text)


def read_power_modes(sources: Sources) -> tuple[PowerMode, ...]:
    """Returns the modes that the machine has; none where its configuration cannot be read."""
    text = sources.text("etc/nvpmodel.conf")
    return () if text is None else parse_power_modes(text)
