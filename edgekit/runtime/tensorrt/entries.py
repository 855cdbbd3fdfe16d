"""Files that a native library reads, kept on disk: their owner's alone, hashed, written whole, bounded in number.

What such a library is given can run code, so an entry is read only where it is this user's own file in this user's own
folder, writable by nobody else, and its hash is right.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from edgekit.errors import UserError
from edgekit.files import atomic_write

__all__ = [
    "Unusable",
    "clear_abandoned",
    "digest",
    "entry_name",
    "last_use",
    "locked",
    "private_folder",
    "read_entry",
    "shrink",
    "write_entry",
]

Waiting = AbstractContextManager[Any]
_MAGIC = b"edgekit-engine 1\n"
_LONGEST_HEADER = 1 << 16
_ABANDONED = ".edgekit-*.tmp"  # what a process that was killed while it wrote left behind
_ELSEWHERE = "give another folder (cache_dir), or set XDG_CACHE_HOME"


class Unusable(Exception):
    """An entry that must not be used; says why."""


def private_folder(folder: Path) -> None:
    """Makes a folder for its owner alone where it is not there.

    Raises:
        UserError: It cannot be made, or others may write into it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    except OSError as error:
        raise UserError(f"{folder}: cannot keep engines there: {error.strerror}", hint=_ELSEWHERE) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise UserError(
            f"{folder}: others may write there, and an engine is code",
            hint=f"chmod 700 {folder}, if it is yours; or {_ELSEWHERE}",
        )


def entry_name(facts: Mapping[str, str]) -> str:
    """Returns the name that follows from all that an entry depends on."""
    return digest(json.dumps(dict(facts), sort_keys=True).encode())


def read_entry(path: Path, *, header_only: bool = False) -> tuple[dict[str, Any], bytes]:
    """Returns an entry's header (``facts``, ``sha256``, ``size_bytes``) and content.

    Args:
        path: The file.
        header_only: Leave the content out, unread.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read, or is a symbolic link.
        Unusable: It is not this user's own, or damaged.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise Unusable("it is not this user's own file, readable and writable by nobody else")
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise Unusable("it is no entry of this version")
        try:
            header = json.loads(stream.readline(_LONGEST_HEADER))
            wanted, size = str(header["sha256"]), int(header["size_bytes"])
            dict(header["facts"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable("its header is damaged") from error
        if header_only:
            return header, b""
        data = stream.read(size + 1)
    if len(data) != size or digest(data) != wanted:
        raise Unusable("its content is not what was written")
    return header, data


def write_entry(path: Path, facts: Mapping[str, str], data: bytes) -> None:
    """Writes an entry, whole or not at all, for its owner alone.

    Raises:
        UserError: It cannot be written.
    """
    header = {"facts": dict(facts), "sha256": digest(data), "size_bytes": len(data)}
    with atomic_write(path, size_bytes=len(data)) as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(_MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n")
        stream.write(data)


def clear_abandoned(folder: Path) -> None:
    """Removes what killed writers left; the caller holds the folder's lock, so that nobody is writing."""
    for left in folder.glob(_ABANDONED):
        left.unlink(missing_ok=True)


def shrink(folder: Path, pattern: str, limit_bytes: int, *, keep: Path) -> None:
    """Removes the entries that were not used for longest where all together are larger than the limit.

    Args:
        folder: Where they are.
        pattern: Their names.
        limit_bytes: The bound.
        keep: Stays in any case.
    """
    entries = sorted(folder.glob(pattern), key=last_use, reverse=True)
    total = 0
    for path in [keep, *(path for path in entries if path != keep)]:
        total += path.stat().st_size
        if total > limit_bytes and path != keep:
            path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, waiting: Callable[[], Waiting] = nullcontext) -> Iterator[None]:
    """Holds the folder's lock; the system frees it when a process ends, however that happens.

    Args:
        folder: The folder.
        waiting: Makes a context that lasts while another process has the lock.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with waiting():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def last_use(path: Path) -> float:
    """When an entry was used last, in seconds since the epoch; 0 where another process removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
