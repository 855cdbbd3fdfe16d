"""Ctrl-C while a library's C code runs, which may turn the KeyboardInterrupt into an error of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "noted_interrupts"]


class Interrupts:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.seen = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Notes it, and raises KeyboardInterrupt as Python's own handler does."""
        self.seen = True
        raise KeyboardInterrupt


@contextmanager
def noted_interrupts() -> Iterator[Interrupts]:
    """Notes Ctrl-C until the context ends; leaves a handler that is not Python's own in place."""
    interrupts = Interrupts()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
