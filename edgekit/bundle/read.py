"""Reading a bundle: everything is verified before anything is handed out, and no engine library is touched."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekit.bundle.arrays import parse_array
from edgekit.bundle.compression import decompressed
from edgekit.bundle.digest import REPORT_NAME, parse_json, sha256_hex
from edgekit.bundle.manifest import EngineRecord, Manifest
from edgekit.bundle.schema import parse_manifest
from edgekit.bundle.structure import DAMAGED, MANIFEST_NAME, MAX_BUNDLE_BYTES, Member, scan
from edgekit.config import nearest
from edgekit.errors import BundleError

__all__ = ["MAX_REPORT_BYTES", "Bundle", "bundle_from_bytes", "read_bundle"]

MAX_REPORT_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle, held in memory: what happens to the file afterwards changes nothing.

    Attributes:
        path: Where it was read from.
        manifest: What is inside.
        data: The whole file.
        members: Name to place inside ``data``.
    """

    path: Path
    manifest: Manifest
    data: bytes = field(repr=False)
    members: Mapping[str, Member] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return len(self.data)

    def read(self, name: str) -> bytes:
        """Returns the content of one file.

        Raises:
            BundleError: The bundle holds no file of that name.
        """
        if name not in self.members:
            raise BundleError(f"{self.path}: holds no file {name!r}", hint=nearest(name, self.members))
        member = self.members[name]
        return self.data[member.start : member.stop]

    def engine_files(self, engine: EngineRecord) -> dict[str, bytes]:
        """Returns the files of one of its engines by role, as the inference library takes them.

        Raises:
            BundleError: A compressed file does not unpack to what the manifest says.
        """
        plain = {role: self.read(name) for role, name in engine.files.items()}
        unpacked = {
            role: decompressed(self.read(part.file), size_bytes=part.size_bytes, where=f"{self.path}: {part.file}")
            for role, part in engine.zlib.items()
        }
        return {**plain, **unpacked}

    def array(self, name: str) -> npt.NDArray[Any]:
        """Returns the content of an ``.npy`` file as an array that the caller owns. Nothing is unpickled.

        Raises:
            BundleError: No such file, or it is no ``.npy`` file of numbers.
        """
        return parse_array(self.read(name), where=f"{self.path}: {name}")

    def report(self) -> dict[str, Any]:
        """Returns the measurements and the history, as plain data.

        Raises:
            BundleError: ``report.json`` is not valid JSON.
        """
        return parse_json(self.read(REPORT_NAME), where=f"{self.path}: {REPORT_NAME}")


def read_bundle(path: Path) -> Bundle:
    """Reads a ``.edge`` file once into memory and verifies all of it.

    Raises:
        BundleError: Missing, unreadable, not a bundle, damaged, tampered with, or of a newer format.
    """
    return bundle_from_bytes(_snapshot(path), path=path)


def bundle_from_bytes(data: bytes, *, path: Path) -> Bundle:
    """Verifies a bundle that is in memory already.

    Checked in this order: the digest of the whole file, the records of the zip, the manifest, then size and hash of
    every file.

    Args:
        data: The whole file.
        path: Where it came from, for messages.

    Raises:
        BundleError: As :func:`read_bundle`.
    """
    where = str(path)
    members = scan(data, where=where)
    if MANIFEST_NAME not in members:
        raise BundleError(f"{where}: holds no {MANIFEST_NAME}", hint=DAMAGED)
    view = memoryview(data)
    place = members[MANIFEST_NAME]
    manifest = parse_manifest(bytes(view[place.start : place.stop]), where=where)
    _check_content(view, members, manifest, where)
    return Bundle(path=path, manifest=manifest, data=data, members=members)


def _check_content(view: memoryview, members: Mapping[str, Member], manifest: Manifest, where: str) -> None:
    stored = set(members) - {MANIFEST_NAME}
    listed = set(manifest.files)
    for name in sorted(stored - listed):
        raise BundleError(f"{where}: {name} is stored but not listed in {MANIFEST_NAME}", hint=DAMAGED)
    for name in sorted(listed - stored):
        raise BundleError(f"{where}: {name} is listed in {MANIFEST_NAME} but not stored", hint=DAMAGED)
    for name, record in manifest.files.items():
        member = members[name]
        if member.size_bytes != record.size_bytes:
            raise BundleError(
                f"{where}: {name}: expected {record.size_bytes:,} bytes, found {member.size_bytes:,}", hint=DAMAGED
            )
        digest = sha256_hex(view[member.start : member.stop])
        if digest != record.sha256:
            raise BundleError(f"{where}: {name}: SHA-256: expected {record.sha256!r:.80}, found {digest}", hint=DAMAGED)
    if members[REPORT_NAME].size_bytes > MAX_REPORT_BYTES:
        found = members[REPORT_NAME].size_bytes
        raise BundleError(
            f"{where}: {REPORT_NAME}: expected at most {MAX_REPORT_BYTES:,} bytes, found {found:,}", hint=DAMAGED
        )


def _snapshot(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: expected a bundle, found {'a folder' if path.is_dir() else 'no regular file'}")
        if status.st_size > MAX_BUNDLE_BYTES:
            raise BundleError(f"{path}: expected at most {MAX_BUNDLE_BYTES:,} bytes, found {status.st_size:,}")
        with path.open("rb") as stream:
            return stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot read: {error.strerror}", hint="check the path and its permissions"
        ) from error
