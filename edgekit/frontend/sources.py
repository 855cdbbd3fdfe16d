"""The line of the model's source that a node comes from, out of the stack trace that torch.export keeps of it."""

from __future__ import annotations

import re
from pathlib import PurePath

__all__ = ["source_line"]

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*(\n\s*(?P<code>[^\n]+))?')
# Frames of torch's own layers say nothing that the module's path does not.
_LIBRARY = re.compile(r"[/\\](site|dist)-packages[/\\]torch[/\\]")
_LONGEST = 160


def source_line(stack_trace: str | None) -> str:
    r"""Returns file, line and code of the innermost frame outside torch, or an empty string where there is none.

    The file's name stands there without its folder: paths are the user's own.

    >>> source_line('File "/home/me/heads.py", line 12, in forward\n    return torch.linalg.det(x)')
    'heads.py, line 12: return torch.linalg.det(x)'
    """
    frames = [
        frame
        for frame in _FRAME.finditer("" if stack_trace is None else stack_trace)
        if not _LIBRARY.search(frame["file"])
    ]
    if not frames:
        return ""
    last = frames[-1]
    code = "" if last["code"] is None else f": {last['code'].strip()}"
    return f"{PurePath(last['file']).name}, line {last['line']}{code}"[:_LONGEST]
