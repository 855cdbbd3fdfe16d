"""Files and folders that appear whole or not at all.

Everything that edgekit gives a user is written here: into a temporary name in the same folder, flushed to the disk,
then renamed. Whatever interrupts the writing (an exception, Ctrl-C, a full disk), the old file stays as it was and the
temporary one goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit.errors import UserError

__all__ = ["atomic_folder", "atomic_write", "user_cache_folder"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WRITE_BUFFER_BYTES = 1 << 20


def user_cache_folder() -> Path:
    """Returns where edgekit keeps what it can make again: in ``XDG_CACHE_HOME``, or ``~/.cache``."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named else Path.home() / ".cache") / "edgekit"


@contextlib.contextmanager
def atomic_write(path: Path, *, size_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes the place of ``path`` only when the block ends well.

    A symbolic link keeps being one: the file that it points to is replaced. Permissions follow the umask.

    Args:
        path: The file to make or to replace.
        size_bytes: How much will be written, where that is known: the message about a full disk then names it.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        UserError: The folder is missing or not writable, ``path`` is something else than a file, or the disk is full.
    """
    final = Path(os.path.realpath(path))
    with _explained(path):
        _check_parent(path, final)
        if final.exists() and not final.is_file():
            raise UserError(f"{path}: cannot write: it is there and is not a file", hint="give the path of a file")
    # The name is chosen before the file is made, so that no interrupt can fall between the making and the try.
    temporary = _temporary(final)
    with _full_disk_explained(path, final.parent, size_bytes):
        try:
            with _explained(path):
                stream = temporary.open("xb", buffering=_WRITE_BUFFER_BYTES)
            try:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:
                # Closing writes what is buffered, which can only fail again; the first error is the one to report.
                with contextlib.suppress(OSError):
                    stream.close()
                raise
            with _explained(path):
                stream.close()
                temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(final.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Makes a folder that appears under ``path``, with all it holds, only when the block ends well.

    Args:
        path: The folder to make. An empty one may be there already.
        replace: Take the place of a folder that is not empty; all it holds is lost, once the new one is complete.

    Yields:
        A temporary, empty folder beside ``path``; what the block puts there is moved.

    Raises:
        UserError: The parent is missing or not writable, ``path`` is a file, or a folder that is not empty without
            ``replace``, or the disk is full.
    """
    final = Path(os.path.realpath(path))
    with _explained(path):
        _check_parent(path, final)
        _check_folder_free(path, final, replace=replace)
    temporary = _temporary(final)
    old = _temporary(final)
    with _full_disk_explained(path, final.parent, None):
        try:
            with _explained(path):
                temporary.mkdir()
            yield temporary
            _sync_files(temporary)
            with _explained(path):
                _check_folder_free(path, final, replace=replace)
                if final.exists():
                    final.rename(old)
                temporary.rename(final)
                if old.exists():
                    shutil.rmtree(old)
        except BaseException:
            if old.exists():
                _undo_move(old, final)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    _sync_folder(final.parent)


def _undo_move(old: Path, final: Path) -> None:
    if final.exists():
        shutil.rmtree(old)
    else:
        old.rename(final)


def _temporary(final: Path) -> Path:
    return final.parent / f".edgekit-{secrets.token_hex(8)}.tmp"


def _check_parent(path: Path, final: Path) -> None:
    if not final.parent.is_dir():
        raise UserError(
            f"{path}: cannot write: there is no folder {final.parent}", hint="make the folder first, or check the path"
        )


def _check_folder_free(path: Path, final: Path, *, replace: bool) -> None:
    if final.exists() and not final.is_dir():
        raise UserError(f"{path}: expected a folder, found a file", hint="give another path")
    if not replace and final.exists() and any(final.iterdir()):
        raise UserError(f"{path}: the folder is not empty", hint="give the path of a new or empty folder")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UserError(f"{path}: cannot write: {error.strerror}", hint="check the path and its permissions") from error


@contextlib.contextmanager
def _full_disk_explained(path: Path, folder: Path, size_bytes: int | None) -> Iterator[None]:
    """Stands outside of the clean-up, so that the space it reports as free is what the user will find."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(folder).free
        needed = "" if size_bytes is None else f"{size_bytes:,} bytes are needed, "
        raise UserError(
            f"{path}: cannot write: {error.strerror}: {needed}{free:,} bytes are free in {folder}",
            hint="free some space there, or write to another disk; nothing was changed",
        ) from error


def _sync_files(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with (Path(place) / name).open("rb") as stream:
                os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    # The file is complete and in place. This only hastens the rename's way to the disk, and not every system can do it.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
