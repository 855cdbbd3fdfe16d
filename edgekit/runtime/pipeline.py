"""Many inferences in order, with the work before and after each one done while the engine runs others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.runtime.session import Session, Ticket

__all__ = ["pipelined"]

KeyT = TypeVar("KeyT")
Array = npt.NDArray[Any]


def pipelined(
    session: Session, feeds: Iterable[tuple[KeyT, Mapping[str, Array]]]
) -> Iterator[tuple[KeyT, dict[str, np.ndarray[Any, Any]]]]:
    """Runs feeds one after the other, keeping ``session.in_flight`` of them going.

    Taking the next feeds, and what the caller does with outputs, overlap with the engine's work: outputs come out only
    once the next feeds are under way.

    Args:
        session: The engine.
        feeds: Each with a key that its outputs come back with; the arrays must stay as they are until then.

    Yields:
        Key and outputs, in the order of the feeds.

    Raises:
        UserError: As :meth:`edgekit.runtime.session.Session.submit`.
        StageError: The engine failed.
    """
    pending: deque[tuple[KeyT, Ticket]] = deque()
    for key, arrays in feeds:
        done = None
        if len(pending) >= session.in_flight:
            oldest, ticket = pending.popleft()
            done = oldest, session.collect(ticket)
        pending.append((key, session.submit(arrays)))
        if done is not None:
            yield done
    while pending:
        oldest, ticket = pending.popleft()
        yield oldest, session.collect(ticket)
