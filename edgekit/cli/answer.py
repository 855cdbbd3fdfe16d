"""What a verb hands back: one document for scripts and one text for people; printing is done in one place."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

__all__ = ["Answer", "document_text", "print_document", "print_text", "stdout_kept_clean"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one command.

    Attributes:
        schema: Name and version of the document, such as ``edgekit.eval/1``.
        document: What ``--json`` prints, without the key ``schema``. Numpy scalars, paths and tuples are welcome; a
            number that is not finite becomes ``null``.
        text: What is printed otherwise.
        exit_code: 0, or another code of the verb's documentation.
    """

    schema: str
    document: Mapping[str, Any]
    text: str
    exit_code: int = 0


def document_text(schema: str, document: Mapping[str, Any]) -> str:
    """Returns the JSON document, its ``schema`` first, without a newline at the end."""
    return json.dumps({"schema": schema, **_plain(document)}, indent=2, allow_nan=False, ensure_ascii=False)


def print_document(schema: str, document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout."""
    _print(document_text(schema, document))


def print_text(text: str) -> None:
    """Prints text on stdout; nothing at all when it is empty."""
    if text:
        _print(text)


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Sends whatever is written to stdout inside the block to stderr, be it from Python or from a C library.

    Inference libraries print as they please; a script that reads stdout must find the document and nothing else.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        # C libraries buffer on their own: what they hold back must not come out after the redirection has ended.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _print(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left (``| head``): that is its right. Without this, Python would complain again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
