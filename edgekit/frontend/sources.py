"""The line of the model's source that a node comes from, out of the stack trace that torch.export keeps of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Frame", "innermost_frame", "source_line"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d{1,9}), in [^\n]*(\n\s*(?P<code>[^\n]+))?')
# Frames of torch's own layers say nothing that the module's path does not; nobody wrote those of generated code.
_LIBRARY = re.compile(r"[/\\](site|dist)-packages[/\\]torch[/\\]|^<eval_with_key>")
_LONGEST = 160


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One call in a stack trace.

    Attributes:
        file: The file's name without its folder: paths are the user's own.
        line: Counted from 1.
        code: The line itself; empty where the trace has none.
    """

    file: str
    line: int
    code: str


def innermost_frame(stack_trace: str) -> Frame | None:
    """Returns the innermost frame of the model's own code, or None where there is none."""
    frames = [frame for frame in _FRAME.finditer(stack_trace) if not _LIBRARY.search(frame["file"])]
    if not frames:
        return None
    last = frames[-1]
    code = "" if last["code"] is None else last["code"].strip()
    # Either separator: the trace may come from another system.
    return Frame(file=re.split(r"[/\\]", last["file"])[-1], line=int(last["line"]), code=code)


def source_line(stack_trace: str | None) -> str:
    r"""Returns file, line and code of the innermost frame of the model's own code, or an empty string without one.

    >>> source_line('File "/home/me/heads.py", line 12, in forward\n    return torch.linalg.det(x)')
    'heads.py, line 12: return torch.linalg.det(x)'
    """
    frame = None if stack_trace is None else innermost_frame(stack_trace)
    if frame is None:
        return ""
    return (f"{frame.file}, line {frame.line}" + (f": {frame.code}" if frame.code else ""))[:_LONGEST]
