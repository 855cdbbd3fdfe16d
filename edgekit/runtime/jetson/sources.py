"""Where the texts come from: files below a root, and what commands print. Tests give recorded ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "Sources", "run_command"]

Run = Callable[[Sequence[str], int | None], str | None]
"""Runs a command and returns what it printed, or None; with a number, only so many lines, and the command is ended."""

_LIMIT_S = 10.0


def run_command(command: Sequence[str], lines: int | None = None, *, limit_s: float = _LIMIT_S) -> str | None:
    """Runs a command that only reports, without a shell and without input.

    Args:
        command: The program and its arguments.
        lines: How many lines to wait for, for a program that never ends by itself; None waits for its end.
        limit_s: It is ended after this many seconds, and what it printed until then is returned.

    Returns:
        Its standard output; None where there is no such program, or it cannot be started.
    """
    if shutil.which(command[0]) is None:
        return None
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            text=True,
            errors="replace",
        )
    except OSError:
        return None
    found: list[str] = []
    timer = threading.Timer(limit_s, child.kill)
    timer.start()
    try:
        with child:  # waits for its end
            assert child.stdout is not None
            for line in child.stdout:
                found.append(line)
                if len(found) == lines:
                    child.kill()
                    break
    finally:
        timer.cancel()
    return "".join(found)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The machine that is looked at.

    Attributes:
        root: What stands for ``/``.
        run: What runs commands.
    """

    root: Path = Path("/")
    run: Run = run_command

    def text(self, path: str) -> str | None:
        """Returns a file's text, or None where it cannot be read.

        Args:
            path: Relative to the root.
        """
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """Returns the whole number that a file holds, or None."""
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def folders(self, pattern: str) -> tuple[str, ...]:
        """Returns the paths below the root that match a pattern, sorted."""
        return tuple(sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern)))

    def output(self, *command: str, lines: int | None = None) -> str | None:
        """Returns what a command prints, or None where it is not there."""
        return self.run(command, lines)
