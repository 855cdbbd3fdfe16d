"""Progress of long jobs, passed explicitly: a bar on a terminal, or silence.

Whatever may take long takes a :class:`Progress` and opens a task on it. The bar is drawn on stderr, only on a terminal,
and only once the job has run for two seconds, so that scripts, pipes and quick jobs see nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

__all__ = ["Progress", "ProgressTask", "SilentProgress", "TerminalProgress", "progress_for"]

_BAR_WIDTH = 30
_REDRAW_S = 0.1
_TICK_S = 1.0


class ProgressTask(Protocol):
    """One running job."""

    def advance(self, count: int = 1) -> None:
        """Says that ``count`` more steps are done."""

    def note(self, text: str) -> None:
        """Says in a few words how it goes (a loss, say); replaces what was said before."""


class Progress(Protocol):
    """Where progress is shown."""

    def task(self, label: str, total: int | None) -> AbstractContextManager[ProgressTask]:
        """Opens a job; leaving the context ends it, also when an exception leaves it.

        Args:
            label: What is being done, in a few words.
            total: Number of steps; None when it is not known.
        """


class SilentProgress:
    """Shows nothing: for ``--json``, for pipes, and for callers who do not ask."""

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[ProgressTask]:
        """Opens a job that shows nothing."""
        yield _SilentTask()


class TerminalProgress:
    """Draws one line that renews itself, and removes it when the job ends.

    Args:
        stream: Where to draw.
        delay_s: A job shorter than this shows nothing.
        clock: Seconds, monotonic.
    """

    def __init__(self, stream: TextIO, *, delay_s: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._delay_s = delay_s
        self._clock = clock

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[ProgressTask]:
        """Opens a job whose bar appears once it has run for ``delay_s``."""
        bar = _Bar(label, total, self._stream, self._delay_s, self._clock)
        ended = threading.Event()
        # Draws while a single step takes long. A daemon, so that it never keeps a process alive.
        ticker = threading.Thread(target=_tick, args=(bar, ended, self._delay_s), daemon=True)
        ticker.start()
        try:
            yield bar
        finally:
            ended.set()
            ticker.join()
            bar.clear()


def progress_for(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """Returns the progress that fits where the output goes.

    Args:
        quiet: True shows nothing (``--json``, ``--quiet``).
        stream: Where to draw; None is stderr.

    Returns:
        A bar when ``stream`` is a terminal and ``quiet`` is off, otherwise silence.
    """
    target = sys.stderr if stream is None else stream
    return SilentProgress() if quiet or not target.isatty() else TerminalProgress(target)


def _tick(bar: _Bar, ended: threading.Event, delay_s: float) -> None:
    wait_s = delay_s
    while not ended.wait(wait_s):
        bar.refresh()
        wait_s = _TICK_S


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Bar:
    def __init__(
        self, label: str, total: int | None, stream: TextIO, delay_s: float, clock: Callable[[], float]
    ) -> None:
        self._label, self._total, self._stream, self._clock = label, total, stream, clock
        self._start = clock()
        self._next_draw = self._start + delay_s
        self._done = 0
        self._note = ""
        self._drawn_width = 0
        self._lock = threading.Lock()

    def advance(self, count: int = 1) -> None:
        self._done += count
        self.refresh()

    def note(self, text: str) -> None:
        self._note = text
        self.refresh()

    def refresh(self) -> None:
        """Draws the line anew if it is time for it."""
        with self._lock:
            now = self._clock()
            if now >= self._next_draw:
                self._next_draw = now + _REDRAW_S
                self._draw(self._line(now - self._start))

    def clear(self) -> None:
        if self._drawn_width:
            self._stream.write("\r" + " " * self._drawn_width + "\r")
            self._stream.flush()
            self._drawn_width = 0

    def _line(self, elapsed_s: float) -> str:
        note = f", {self._note}" if self._note else ""
        if self._total is None or self._total < 1:
            return f"{self._label}: {self._done} ({elapsed_s:.0f} s){note}"
        share = min(1.0, self._done / self._total)
        filled = round(share * _BAR_WIDTH)
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        time_text = f"{elapsed_s * (1 - share) / share:.0f} s left" if share > 0 else f"{elapsed_s:.0f} s so far"
        return f"{self._label} [{bar}] {self._done}/{self._total} {share:4.0%}, {time_text}{note}"

    def _draw(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._drawn_width))
        self._stream.flush()
        self._drawn_width = max(self._drawn_width, len(line))
