"""Engines that were built on this machine, kept on disk: built once however many processes ask, never trusted blindly.

The name of an entry follows from all that the engine depends on: what changed, a driver or a library, has another name,
and the old engine is never tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.runtime.tensorrt.entries import (
    Unusable,
    clear_abandoned,
    entry_name,
    last_use,
    locked,
    private_folder,
    read_entry,
    shrink,
    write_entry,
)

__all__ = ["EngineCache", "Obtained"]

Waiting = AbstractContextManager[Any]
_SUFFIX = ".engine"
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
        private_folder(folder)

    @property
    def folder(self) -> Path:
        """Where the engines are."""
        return self._folder

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
        path = self._folder / f"{entry_name(facts)}{_SUFFIX}"
        found, _ = self._found(path, facts)
        if found is not None:
            return Obtained(data=found)
        with locked(self._folder, waiting=waiting):
            # Another process may have built it meanwhile.
            found, why = self._found(path, facts)
            if found is not None:
                return Obtained(data=found)
            clear_abandoned(self._folder)
            data = build()
            write_entry(path, facts, data)
            shrink(self._folder, f"*{_SUFFIX}", self._limit_bytes, keep=path)
        return Obtained(data=data, why_built=why)

    def _found(self, path: Path, facts: Mapping[str, str]) -> tuple[bytes | None, str]:
        try:
            header, data = read_entry(path)
        except FileNotFoundError:
            return None, self._why_none(facts)
        except (Unusable, OSError) as error:
            return None, f"its entry in the cache is not usable: {error}"
        if header["facts"] != dict(facts):
            return None, "its entry in the cache is of another engine"
        os.utime(path)
        return data, ""

    def _why_none(self, facts: Mapping[str, str]) -> str:
        """What changed since the engine of this graph that was used last, or that there was none."""
        entries = sorted(self._folder.glob(f"*{_SUFFIX}"), key=last_use, reverse=True)
        for path in entries:
            try:
                header, _ = read_entry(path, header_only=True)
            except (Unusable, OSError):
                continue
            old = header["facts"]
            if old.get("graph") == facts.get("graph"):
                changed = [key for key in sorted({*old, *facts}) if old.get(key) != facts.get(key)]
                return "; ".join(f"{key} was {old.get(key, 'not known')}, is {facts.get(key)}" for key in changed)
        return "it was not built here before"
