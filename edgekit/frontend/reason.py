"""What went wrong inside torch, in one line, with the user's own source line where torch knows it."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["quiet", "short_reason", "user_line"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s+(?P<code>.+)')
_ADVICE = re.compile(
    r"^(For more|For extended|If you suspect|For C\+\+|The error above|Caused by|consider using)", re.MULTILINE
)
_MAX_LENGTH = 300


def short_reason(error: BaseException) -> str:
    """Returns the first sentence or two of an error's text, without torch's debugging advice."""
    text = _ADVICE.split(str(error).strip(), maxsplit=1)[0]
    lines = [line.strip(" -*") for line in text.splitlines() if line.strip(" -*^~")]
    if lines and lines[0].startswith("Constraints violated") and len(lines) > 1:
        lines = lines[1:]
    reason = " ".join(lines[:2]) if lines else type(error).__name__
    return reason if len(reason) <= _MAX_LENGTH else reason[: _MAX_LENGTH - 3] + "..."


def user_line(error: BaseException) -> str | None:
    """Returns the line of the user's code that an error is about, as ``file.py:12: code``, or None.

    torch puts it into the message for data-dependent control flow; otherwise it is the innermost frame outside torch.
    """
    for frame in reversed(list(_FRAME.finditer(str(error)))):
        if not _internal(frame["file"]):
            return f"{Path(frame['file']).name}:{frame['line']}: {frame['code'].strip()}"
    for summary in reversed(traceback.extract_tb(error.__traceback__)):
        if not _internal(summary.filename):
            return f"{Path(summary.filename).name}:{summary.lineno}: {summary.line}"
    return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch's own warnings and log lines off the terminal: what matters comes back as an error or a record."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _internal(file: str) -> bool:
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    standard = str(Path(contextlib.__file__).parent)
    return file.startswith(ours) or (file.startswith(standard) and "site-packages" not in file)
