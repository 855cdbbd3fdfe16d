"""Plain-text tables that fit the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["output_width", "pairs", "table"]

_GAP = "  "
_NARROWEST = 8  # a wrapped column keeps at least this many characters


def output_width() -> int | None:
    """Returns the terminal's width in characters; None, wrap nothing, where the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() and "COLUMNS" not in os.environ else _asked_width()


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), width: int | None = None
) -> str:
    """Lays out a table: a header, a rule, and the rows.

    Args:
        headers: Column titles.
        rows: Cells, as many in each row as there are titles.
        right: Titles of the columns that are aligned to the right, as numbers are; these never wrap.
        width: Most characters on a line; the widest text columns wrap to fit. None wraps nothing.

    Returns:
        The lines, without a newline at the end.

    >>> print(table(["name", "ms"], [["int8", "0.1"], ["fp32", "12.0"]], right=["ms"]))
    name    ms
    ----  ----
    int8   0.1
    fp32  12.0
    """
    columns = [[header, *(row[index] for row in rows)] for index, header in enumerate(headers)]
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    flexible = [index for index, header in enumerate(headers) if header not in right]
    if width is not None:
        widths = _fitted(widths, flexible, width)
    lines: list[str] = []
    for position, row in enumerate([headers, ["-" * size for size in widths], *rows]):
        cells = [_wrapped(cell, size) if position != 1 else [cell] for cell, size in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = [
                part.rjust(size) if header in right else part.ljust(size)
                for part, size, header in zip(parts, widths, headers, strict=True)
            ]
            lines.append(_GAP.join(padded).rstrip())
    return "\n".join(lines)


def pairs(rows: Sequence[tuple[str, str]], *, width: int | None = None) -> str:
    """Lays out names and values in two columns, without a header; long values wrap.

    >>> print(pairs([("CPU", "Some CPU"), ("cores", "2")]))
    CPU    Some CPU
    cores  2
    """
    name_width = max((len(name) for name, _ in rows), default=0)
    value_width = None if width is None else max(width - name_width - len(_GAP), _NARROWEST)
    lines: list[str] = []
    for name, value in rows:
        for index, part in enumerate(value.split("\n") if value_width is None else _wrapped(value, value_width)):
            lines.append(f"{name if index == 0 else '':{name_width}}{_GAP}{part}".rstrip())
    return "\n".join(lines)


def _asked_width() -> int | None:
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def _fitted(widths: list[int], flexible: list[int], width: int) -> list[int]:
    fitted = list(widths)
    while sum(fitted) + len(_GAP) * (len(fitted) - 1) > width:
        widest = max(flexible, key=lambda index: fitted[index], default=None)
        if widest is None or fitted[widest] <= _NARROWEST:
            break
        fitted[widest] -= 1
    return fitted


def _wrapped(cell: str, width: int) -> list[str]:
    lines: list[str] = []
    for line in cell.split("\n"):
        lines += textwrap.wrap(line, max(width, 1), break_on_hyphens=False) if len(line) > width else [line]
    return lines
