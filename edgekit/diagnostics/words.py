"""Numbers as people read them, spelled alike in the tables and on the page."""

from __future__ import annotations

from edgekit.diagnostics.records import Range

__all__ = ["bytes_text", "decibel", "interval_text", "plain", "range_text", "share"]

UNKNOWN = "-"


def decibel(value: float | None) -> str:
    """Returns a ratio in dB with one digit.

    >>> decibel(31.24), decibel(None)
    ('31.2', '-')
    """
    return UNKNOWN if value is None else f"{value:.1f}"


def plain(value: float) -> str:
    """Returns a value of a tensor with three digits that count.

    >>> plain(0.0), plain(-12.3456), plain(0.00012345), plain(1234567.0)
    ('0', '-12.3', '0.000123', '1.23e+06')
    """
    value += 0.0  # no negative zero
    return f"{value:.3g}" if not 1000 <= abs(value) < 100_000 else f"{value:.0f}"


def range_text(value: Range | None) -> str:
    """Returns a range in brackets.

    >>> range_text((0.0, 6.0)), range_text(None)
    ('[0, 6]', '-')
    """
    return UNKNOWN if value is None else f"[{plain(value[0])}, {plain(value[1])}]"


def share(value: float | None) -> str:
    """Returns a share as percent; a small one is never rounded to nothing.

    >>> share(0.0), share(0.0004), share(0.0123), share(0.814), share(1e-9), share(None)
    ('0 %', '0.04 %', '1.2 %', '81 %', '< 0.001 %', '-')
    """
    if value is None:
        return UNKNOWN
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if abs(percent) < 0.001:
        return "< 0.001 %"
    digits = 0 if abs(percent) >= 10 else 1 if abs(percent) >= 1 else 2 if abs(percent) >= 0.01 else 3
    return f"{percent:.{digits}f} %"


def interval_text(value: tuple[float, float, float] | None, digits: int) -> str:
    """Returns an estimate with its interval.

    >>> interval_text((0.12, -0.1, 0.34), 2)
    '0.12 [-0.10, 0.34]'
    """
    if value is None:
        return UNKNOWN
    estimate, low, high = value
    return f"{estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def bytes_text(value: int | None) -> str:
    """Returns a size.

    >>> bytes_text(900), bytes_text(871_234), bytes_text(None)
    ('900 B', '851 KiB', '-')
    """
    if value is None:
        return UNKNOWN
    if value < 1024:
        return f"{value} B"
    return f"{value / 1024:,.0f} KiB" if value < 10 << 20 else f"{value / (1 << 20):,.1f} MiB"
