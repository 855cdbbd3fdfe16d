"""Which of the processes of ``torchrun`` this is, for what is said once: number 0 speaks for all of them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import NoReturn

__all__ = ["Place", "leave", "place"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process among those that were started together.

    Attributes:
        rank: From 0.
        size: How many there are; 1 where this one is alone.
    """

    rank: int = 0
    size: int = 1

    @property
    def follows(self) -> bool:
        """Whether another process speaks for this one."""
        return self.size > 1 and self.rank > 0

    @property
    def prefix(self) -> str:
        """What stands before a message, so that the same one from two processes does not look like two."""
        return f"process {self.rank} of {self.size}: " if self.follows else ""


def place() -> Place:
    """Returns the place that ``torchrun`` gave this process (RANK, WORLD_SIZE)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    return Place(rank=int(os.environ.get("RANK", "0")), size=size) if size > 1 else Place()


def leave(code: int) -> NoReturn:
    """Ends the process at once, after an error in one of several.

    Torch takes a group of processes down by waiting for them, which hangs where they are gone: seen after Ctrl-C, until
    ``torchrun`` kills what is left half a minute later. What had to be undone has been undone on the way here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
