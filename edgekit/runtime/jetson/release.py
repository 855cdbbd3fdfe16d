"""``/etc/nv_tegra_release``: which Jetson Linux (L4T) this is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.runtime.jetson.sources import Sources

__all__ = ["Release", "parse_release", "read_release"]

_FIRST_LINE = re.compile(r"^#\s*R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", re.M)


@dataclass(frozen=True, kw_only=True, order=True)
class Release:
    """A release of Jetson Linux; later ones are greater.

    Attributes:
        release: Its first number: 36 is JetPack 6, 38 and 39 are JetPack 7.
        revision: The numbers after it, such as ``(4, 7)``.
    """

    release: int
    revision: tuple[int, ...]

    def __str__(self) -> str:
        return ".".join(str(number) for number in (self.release, *self.revision))


def parse_release(text: str) -> Release | None:
    """Returns the release that the text names, or None where it names none.

    >>> str(parse_release("# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64"))
    '36.4.7'
    """
    found = _FIRST_LINE.search(text)
    if found is None:
        return None
    return Release(release=int(found[1]), revision=tuple(int(number) for number in found[2].split(".")))


def read_release(sources: Sources) -> Release | None:
    """Returns the machine's release, or None."""
    text = sources.text("etc/nv_tegra_release")
    return None if text is None else parse_release(text)
