"""What a library learned on this machine, kept so that the next time is faster, and done without wherever in doubt.

TensorRT's builder learns how long kernels take (a timing cache), TensorRT-RTX's runtime compiles kernels (a runtime
cache). Neither changes what an engine computes, so nothing here is an error: what cannot be read or written is dropped,
with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import UserError
from edgekit.runtime.tensorrt.entries import (
    Unusable,
    clear_abandoned,
    entry_name,
    locked,
    private_folder,
    read_entry,
    shrink,
    write_entry,
)

__all__ = ["Found", "LearnedCache"]

_SUFFIX = ".learned"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was kept.

    Attributes:
        data: For the library; empty where nothing was kept, or what was must not be used.
        dropped: Why what was kept is not used; empty where it is, or where there was nothing.
    """

    data: bytes = field(default=b"", repr=False)
    dropped: str = ""


class LearnedCache:
    """A folder of such data, one file for each set of facts.

    Args:
        folder: Made where it is not there, for its owner alone, once there is something to keep.
        limit_bytes: Files that were not used for longest go when all together are larger; one that alone is larger is
            not kept.
    """

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes

    def find(self, facts: Mapping[str, str]) -> Found:
        """Returns what was kept under exactly these facts."""
        path = self._path(facts)
        if not path.parent.is_dir():
            return Found()
        try:
            private_folder(self._folder)
            header, data = read_entry(path)
            if header["facts"] != dict(facts):
                return Found(dropped="it is of another machine")
            os.utime(path)
        except FileNotFoundError:
            return Found()
        except UserError as error:
            return Found(dropped=error.message)
        except (Unusable, OSError) as error:
            return Found(dropped=str(error))
        return Found(data=data)

    def keep(self, facts: Mapping[str, str], data: bytes) -> str:
        """Keeps what a library gave; what was kept under the same facts goes.

        Returns:
            Why it is not kept; empty where it is.
        """
        path = self._path(facts)
        try:
            private_folder(self._folder)
            with locked(self._folder):
                clear_abandoned(self._folder)
                if len(data) > self._limit_bytes:
                    # Begun anew the next time: these caches only ever grow.
                    path.unlink(missing_ok=True)
                    return f"{len(data):,} bytes, more than the {self._limit_bytes:,} that are kept"
                if not _holds(path, facts, data):
                    write_entry(path, facts, data)
                    shrink(self._folder, f"*{_SUFFIX}", self._limit_bytes, keep=path)
        except UserError as error:
            return error.message
        except OSError as error:
            return f"{path}: {error.strerror}"
        return ""

    def _path(self, facts: Mapping[str, str]) -> Path:
        return self._folder / f"{entry_name(facts)}{_SUFFIX}"


def _holds(path: Path, facts: Mapping[str, str], data: bytes) -> bool:
    try:
        header, kept = read_entry(path)
    except (Unusable, OSError):
        return False
    return bool(header["facts"] == dict(facts) and kept == data)
