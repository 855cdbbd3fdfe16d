"""Engines that were built on this machine, kept on disk: built once however many processes ask, never trusted blindly.

A plan is code, so an entry is read only where it is this user's own file in this user's own folder, writable by nobody
else, and its hash is right. The name of an entry follows from all that the engine depends on: what changed, a driver or
a library, has another name, and the old engine is never tried.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import UserError
from edgekit.files import atomic_write

__all__ = ["EngineCache", "Obtained"]

Waiting = AbstractContextManager[Any]
_MAGIC = b"edgekit-engine 1\n"
_LONGEST_HEADER = 1 << 16
_SUFFIX = ".engine"
_ABANDONED = ".edgekit-*.tmp"  # what a process that was killed while it wrote left behind
LIMIT_BYTES = 8 << 30


@dataclass(frozen=True, kw_only=True)
class Obtained:
    """An engine from the cache.

    Attributes:
        data: The engine.
        why_built: Why it was built just now; empty where it was there.
    """

    data: bytes = field(repr=False)
    why_built: str = ""


class _Unusable(Exception):
    """An entry that must not be used; says why."""


class EngineCache:
    """A folder of built engines.

    Args:
        folder: Made where it is not there, for its owner alone.
        limit_bytes: Entries that were not used for longest go when all together are larger.

    Raises:
        UserError: The folder cannot be made, or others may write into it.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
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

    def obtain(
        self, facts: Mapping[str, str], build: Callable[[], bytes], *, waiting: Callable[[], Waiting] = nullcontext
    ) -> Obtained:
        """Returns the engine that was built for exactly these facts; builds it where there is none.

        One process at a time builds on a machine: builders time kernels, and would disturb each other.

        Args:
            facts: Everything that the engine depends on; ``graph`` says of what it is made.
            build: Makes it; whatever it raises goes to the caller and leaves no entry.
            waiting: Makes a context that lasts while another process is building.

        Raises:
            UserError: The entry cannot be written.
        """
        path = self._folder / f"{_digest(json.dumps(dict(facts), sort_keys=True).encode())}{_SUFFIX}"
        found, _ = self._found(path, facts)
        if found is not None:
            return Obtained(data=found)
        with self._locked(waiting):
            # Another process may have built it meanwhile.
            found, why = self._found(path, facts)
            if found is not None:
                return Obtained(data=found)
            for left in self._folder.glob(_ABANDONED):
                left.unlink(missing_ok=True)
            data = build()
            self._store(path, facts, data)
            self._shrink(keep=path)
        return Obtained(data=data, why_built=why)

    def _found(self, path: Path, facts: Mapping[str, str]) -> tuple[bytes | None, str]:
        try:
            header, data = _read(path)
        except FileNotFoundError:
            return None, self._why_none(facts)
        except (_Unusable, OSError) as error:
            return None, f"its entry in the cache is not usable: {error}"
        if header["facts"] != dict(facts):
            return None, "its entry in the cache is of another engine"
        os.utime(path)
        return data, ""

    def _why_none(self, facts: Mapping[str, str]) -> str:
        """What changed since the engine of this graph that was used last, or that there was none."""
        entries = sorted(self._folder.glob(f"*{_SUFFIX}"), key=_last_use, reverse=True)
        for path in entries:
            try:
                header, _ = _read(path, header_only=True)
            except (_Unusable, OSError):
                continue
            old = header["facts"]
            if old.get("graph") == facts.get("graph"):
                changed = [key for key in sorted({*old, *facts}) if old.get(key) != facts.get(key)]
                return "; ".join(f"{key} was {old.get(key, 'not known')}, is {facts.get(key)}" for key in changed)
        return "it was not built here before"

    def _store(self, path: Path, facts: Mapping[str, str], data: bytes) -> None:
        header = {"facts": dict(facts), "sha256": _digest(data), "size_bytes": len(data)}
        with atomic_write(path, size_bytes=len(data)) as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(_MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n")
            stream.write(data)

    def _shrink(self, *, keep: Path) -> None:
        entries = sorted(self._folder.glob(f"*{_SUFFIX}"), key=_last_use, reverse=True)
        total = 0
        for path in [keep, *(path for path in entries if path != keep)]:
            total += path.stat().st_size
            if total > self._limit_bytes and path != keep:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, waiting: Callable[[], Waiting]) -> Iterator[None]:
        """Holds the folder's lock; the system frees it when a process ends, however that happens."""
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting():
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


_ELSEWHERE = "give another folder (cache_dir), or set XDG_CACHE_HOME"


def _read(path: Path, *, header_only: bool = False) -> tuple[dict[str, Any], bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise _Unusable("it is not this user's own file, readable and writable by nobody else")
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise _Unusable("it is no entry of this version")
        try:
            header = json.loads(stream.readline(_LONGEST_HEADER))
            wanted, size = str(header["sha256"]), int(header["size_bytes"])
            dict(header["facts"])
        except (ValueError, KeyError, TypeError) as error:
            raise _Unusable("its header is damaged") from error
        if header_only:
            return header, b""
        data = stream.read(size + 1)
    if len(data) != size or _digest(data) != wanted:
        raise _Unusable("its content is not what was written")
    return header, data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0
