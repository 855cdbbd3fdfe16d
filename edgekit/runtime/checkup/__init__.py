"""What ``edgekit doctor`` says of NVIDIA's side of a machine: findings, each with what to do next.

Nothing here looks at the machine: the texts are read in ``edgekit.runtime.jetson``, the libraries asked in
``software``, and the findings follow from both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["fits", "note", "problem", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What, in a word or two.
        found: What was found.
        state: ``fits``; ``note``: works, but is worth knowing; ``problem``: does not work as it is; ``unknown``: the
            machine does not say.
        next: What to do, in a sentence; empty where nothing is to be done.
    """

    topic: str
    found: str
    state: State
    next: str = ""

    def __post_init__(self) -> None:
        if self.state == "problem" and not self.next:
            raise ValueError(f"{self.topic}: a problem without a next step")
