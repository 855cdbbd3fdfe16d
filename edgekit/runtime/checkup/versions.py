"""Versions as numbers, as far as they are compared here."""

from __future__ import annotations

import re

__all__ = ["numbers", "short"]


def numbers(version: str, count: int = 2) -> tuple[int, ...]:
    """Returns the first numbers of a version; fewer where it has fewer.

    >>> numbers("10.3.0.30-1+cuda12.5")
    (10, 3)
    """
    found = re.match(r"\d+(?:\.\d+)*", version)
    return () if found is None else tuple(int(part) for part in found[0].split("."))[:count]


def short(version: str) -> str:
    """Returns ``major.minor`` of a version.

    >>> short("12.6.20241114")
    '12.6'
    """
    return ".".join(str(number) for number in numbers(version))
