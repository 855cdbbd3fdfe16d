"""What ``edgekit build`` chose on this machine among a bundle's entries for one target, so that ``load`` takes that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import UserError
from edgekit.files import atomic_write, user_cache_folder

__all__ = ["read_chosen", "write_chosen"]


def write_chosen(digest: str, target: str, precision: str, facts: Mapping[str, str], *, folder: Path | None) -> Path:
    """Remembers a choice.

    Args:
        digest: Content digest of the bundle.
        target: The entries' target.
        precision: Of the entry that was chosen.
        facts: The machine on which it was the fastest.
        folder: The cache folder; None: the user's.

    Returns:
        The file.

    Raises:
        UserError: It cannot be written.
    """
    path = _path(digest, target, folder)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made: {error.strerror}", hint="give another cache folder") from error
    with atomic_write(path) as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(json.dumps({"precision": precision, "facts": dict(facts)}, indent=1).encode())
    return path


def read_chosen(digest: str, target: str, facts: Mapping[str, str], *, folder: Path | None) -> str | None:
    """Returns the precision that was chosen on a machine with these very facts; None where none was."""
    try:
        document = json.loads(_path(digest, target, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("facts") != dict(facts):
        return None
    return str(document.get("precision"))


def _path(digest: str, target: str, folder: Path | None) -> Path:
    root = user_cache_folder() if folder is None else folder
    # Hashed, since a target's name comes out of the bundle and could be a path.
    return root / "chosen" / f"{hashlib.sha256(f'{digest} {target}'.encode()).hexdigest()}.json"
