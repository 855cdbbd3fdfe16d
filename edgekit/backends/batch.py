"""How many images an engine takes at once: a range, and the number that it should be best at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import ConfigError

__all__ = ["LARGEST_BATCH", "BatchRange", "parse_batch"]

LARGEST_BATCH = 65536
"""The largest batch that a portable graph is exported for."""


@dataclass(frozen=True, kw_only=True)
class BatchRange:
    """A range of batch sizes.

    Attributes:
        smallest: Always 1: a call with one frame, the self-test and every measurement feed one image.
        best: The size that an engine is tuned for.
        largest: More are refused.
    """

    smallest: int
    best: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest <= LARGEST_BATCH:
            raise ConfigError(
                f"batch: expected 1 <= smallest <= best <= largest <= {LARGEST_BATCH}, got {self}",
                hint="for instance 8 (up to eight images), or 1/4/16 (up to sixteen, tuned for four)",
            )
        if self.smallest != 1:
            raise ConfigError(
                f"batch: the smallest must be 1, got {self}: a call with one frame, and the self-test, feed one image",
                hint=f"1/{self.best}/{self.largest}",
            )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Smallest, best and largest, as a target's ``engine`` table has them."""
        return self.smallest, self.best, self.largest

    def __str__(self) -> str:
        return f"{self.smallest}/{self.best}/{self.largest}"


def parse_batch(value: int | str | Sequence[int]) -> BatchRange:
    """Reads what a user gives.

    Args:
        value: ``8`` or ``"8"``: up to eight images, tuned for eight; ``"1/4/16"`` or ``(1, 4, 16)``: smallest, best and
            largest.

    Raises:
        ConfigError: Another form, or numbers that are no range.

    >>> str(parse_batch("8"))
    '1/8/8'
    >>> parse_batch("1/4/16").best
    4
    """
    if isinstance(value, str):
        parts = value.strip().split("/")
        numbers = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part)]
        whole = len(numbers) == len(parts)
    else:
        numbers = [value] if isinstance(value, int) else list(value)
        whole = all(type(number) is int for number in numbers)
    if not whole or len(numbers) not in (1, 3):
        raise ConfigError(
            f"batch: expected a number of images, or smallest/best/largest, got {value!r}",
            hint="for instance 8 (up to eight images), or 1/4/16 (up to sixteen, tuned for four)",
        )
    smallest, best, largest = numbers if len(numbers) == 3 else (1, numbers[0], numbers[0])
    return BatchRange(smallest=smallest, best=best, largest=largest)
