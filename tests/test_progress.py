"""The progress bar: only on a terminal, only for long jobs, and gone when the job ends."""

from __future__ import annotations

import io
import threading

import pytest

from edgekit.progress import SilentProgress, TerminalProgress, progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_short_job_draws_nothing() -> None:
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock).task("reading", 10) as task:
        for _ in range(10):
            clock.now += 0.19
            task.advance()
    assert stream.getvalue() == ""


def test_a_long_job_draws_a_bar_and_removes_it() -> None:
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock).task("reading", 10) as task:
        clock.now += 3
        task.advance(5)
        drawn = stream.getvalue()
        assert "reading [###############---------------] 5/10  50%, 3 s left" in drawn
        task.advance()
        assert stream.getvalue() == drawn, "redrawn at once"
        clock.now += 1
        task.advance()
        assert "7/10" in stream.getvalue()
    last = stream.getvalue().rsplit("\r", 2)
    assert last[1].strip() == ""
    assert last[2] == ""


def test_a_note_stands_at_the_end_until_the_next() -> None:
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock).task("training", 10) as task:
        task.note("loss 2.0")
        assert stream.getvalue() == "", "not before the bar"
        clock.now += 3
        task.advance(5)
        assert "50%, 3 s left, loss 2.0" in stream.getvalue()
        clock.now += 1
        task.note("loss 1.5")
        assert stream.getvalue().rstrip().endswith("s left, loss 1.5")


def test_an_unknown_total_counts_only() -> None:
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock).task("reading", None) as task:
        clock.now += 4
        task.advance(7)
        assert "reading: 7 (4 s)" in stream.getvalue()


def test_an_exception_still_removes_the_bar() -> None:
    stream, clock = Terminal(), Clock()

    def fail() -> None:
        with TerminalProgress(stream, clock=clock).task("reading", 2) as task:
            clock.now += 3
            task.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert stream.getvalue().endswith("\r")


def test_a_single_long_step_is_drawn_while_it_runs() -> None:
    drawn = threading.Event()

    class Watched(Terminal):
        def write(self, text: str) -> int:
            drawn.set()
            return super().write(text)

    stream = Watched()
    with TerminalProgress(stream, delay_s=0.01).task("building", 3):
        assert drawn.wait(30), "nothing was drawn although no step has ended"
    assert "building [------------------------------] 0/3   0%, 0 s so far" in stream.getvalue()
    assert stream.getvalue().endswith("\r")


def test_only_a_terminal_gets_a_bar() -> None:
    assert isinstance(progress_for(quiet=False, stream=Terminal()), TerminalProgress)
    assert isinstance(progress_for(quiet=True, stream=Terminal()), SilentProgress)
    assert isinstance(progress_for(quiet=False, stream=io.StringIO()), SilentProgress)
    with SilentProgress().task("reading", 3) as task:
        task.note("nobody sees it")
        task.advance()
