"""Finished parts of a long benchmark, kept in files: an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.files import atomic_write

__all__ = ["digest", "kept"]


def digest(*parts: object) -> str:
    """Returns a digest of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def kept(path: Path, stamp: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the facts kept in a file, or makes and keeps them where they are missing or made from something else."""
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["stamp"] == stamp:
            facts: dict[str, Any] = stored["facts"]
            return facts
    facts = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps({"stamp": stamp, "facts": facts}).encode())
    return facts
