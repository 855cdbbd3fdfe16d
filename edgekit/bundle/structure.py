"""The zip around a bundle: one fixed form, written and checked with the same records.

A bundle is a zip of the plainest kind: every file stored, one after the other from byte 0, then the central directory
in the same order, then the end record. Nothing else fits between, and every field has one allowed value, so no other
tool can see other files in it than this one. The end comment is ``edgekit-bundle/<major> sha256:<64 hex>``: the SHA-256
of every byte before the comment.

Source: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from edgekit.bundle.digest import REPORT_NAME, sha256_hex
from edgekit.bundle.manifest import FORMAT_MAJOR
from edgekit.errors import BundleError

__all__ = [
    "DAMAGED",
    "MANIFEST_NAME",
    "MAX_BUNDLE_BYTES",
    "MAX_FILES",
    "Member",
    "central_record",
    "check_name",
    "end_comment",
    "end_record",
    "format_hint",
    "local_record",
    "scan",
    "stored_order",
]

MANIFEST_NAME = "manifest.json"
MAX_BUNDLE_BYTES = 0xFFFFFFFE
MAX_FILES = 4096
DAMAGED = "the file is damaged or was changed: copy it again, or compile the model again"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}/[0-9a-f]{64}\.[a-z0-9]{1,16}")
_COMMENT = re.compile(rb"edgekit-bundle/([1-9][0-9]{0,3}) sha256:([0-9a-f]{64})\Z")
_COMMENT_SEARCH_BYTES = 128
_LOCAL = struct.Struct("<I5H3I2H")
_CENTRAL = struct.Struct("<I6H3I5H2I")
_END = struct.Struct("<I4H2IH")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file in the zip.

    Attributes:
        name: Path in the bundle, ASCII.
        size_bytes: Length of its content.
        crc32: CRC-32 of its content.
        offset: Where its local header begins, bytes from the start of the bundle.
    """

    name: str
    size_bytes: int
    crc32: int
    offset: int

    @property
    def start(self) -> int:
        """Where the content begins."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def stop(self) -> int:
        """Where the content ends, and the next local header (or the central directory) begins."""
        return self.start + self.size_bytes


class _Local(NamedTuple):
    signature: int
    version_needed: int
    flags: int
    compression_method: int
    time: int
    date: int
    crc32: int
    stored_size: int
    size: int
    name_length: int
    extra_length: int


class _Central(NamedTuple):
    signature: int
    version_made_by: int
    version_needed: int
    flags: int
    compression_method: int
    time: int
    date: int
    crc32: int
    stored_size: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal_attributes: int
    external_attributes: int
    header_offset: int


class _End(NamedTuple):
    signature: int
    disk: int
    directory_disk: int
    entries_on_disk: int
    entries: int
    directory_size: int
    directory_offset: int
    comment_length: int


def _local(member: Member) -> _Local:
    return _Local(
        signature=0x04034B50,
        version_needed=20,
        flags=0,
        compression_method=0,
        time=0,
        date=0x0021,  # 1980-01-01, the first day that a zip can name
        crc32=member.crc32,
        stored_size=member.size_bytes,
        size=member.size_bytes,
        name_length=len(member.name),
        extra_length=0,
    )


def _central(member: Member) -> _Central:
    return _Central(
        signature=0x02014B50,
        version_made_by=0x0314,  # Unix, 2.0
        version_needed=20,
        flags=0,
        compression_method=0,
        time=0,
        date=0x0021,
        crc32=member.crc32,
        stored_size=member.size_bytes,
        size=member.size_bytes,
        name_length=len(member.name),
        extra_length=0,
        comment_length=0,
        disk=0,
        internal_attributes=0,
        external_attributes=0o100644 << 16,  # a regular file: no symbolic link, no folder
        header_offset=member.offset,
    )


def local_record(member: Member) -> bytes:
    """Returns the local header with the name: the bytes that stand before the content."""
    return _LOCAL.pack(*_local(member)) + member.name.encode("ascii")


def central_record(member: Member) -> bytes:
    """Returns the member's record of the central directory, with the name."""
    return _CENTRAL.pack(*_central(member)) + member.name.encode("ascii")


def end_record(*, count: int, directory_offset: int, directory_size: int) -> bytes:
    """Returns the end record without its comment."""
    comment_length = len(end_comment("0" * 64))
    return _END.pack(*_End(0x06054B50, 0, 0, count, count, directory_size, directory_offset, comment_length))


def end_comment(digest: str) -> bytes:
    """Returns the end comment for the SHA-256 of everything before it."""
    return f"edgekit-bundle/{FORMAT_MAJOR} sha256:{digest}".encode("ascii")


def check_name(name: str, *, where: str) -> None:
    """Checks that a file name is one that a bundle may hold: two fixed ones, and ``<folder>/<sha256>.<suffix>``.

    Raises:
        BundleError: Any other name: absolute, with ``..``, a backslash, a drive, a folder, capitals, or not ASCII.
    """
    if name not in (MANIFEST_NAME, REPORT_NAME) and _NAME.fullmatch(name) is None:
        raise BundleError(
            f"{where}: file name {name[:200]!r}: expected {MANIFEST_NAME}, {REPORT_NAME} or <folder>/<sha256>.<suffix>",
            hint=DAMAGED,
        )


def scan(data: bytes, *, where: str) -> dict[str, Member]:
    """Checks the digest in the end comment, then every record of the zip.

    Args:
        data: The whole bundle.
        where: Its path, for messages.

    Returns:
        Name to member, in stored order.

    Raises:
        BundleError: Anything but the one form; says what was found where, and what was expected.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError(f"{where}: expected at most {MAX_BUNDLE_BYTES:,} bytes, found {len(data):,}", hint=DAMAGED)
    view = memoryview(data)
    end = _check_comment(data, view, where)
    members, directory = _read_directory(view, end, where)
    _check_locals(view, members, directory, where)
    return {member.name: member for member in members}


def _check_comment(data: bytes, view: memoryview, where: str) -> int:
    """Returns where the end record begins."""
    found = _COMMENT.search(data[-_COMMENT_SEARCH_BYTES:])
    if found is None:
        kind = "a zip without the end comment of a bundle" if data[:4] == b"PK\x03\x04" else "no bundle"
        raise BundleError(
            f"{where}: {kind}: expected 'edgekit-bundle/{FORMAT_MAJOR} sha256:...' as the last bytes of the file",
            hint="give a file that 'edgekit compile' wrote; if it is one, it is cut or damaged: copy it again",
        )
    comment_length = len(found.group())
    before = len(data) - comment_length
    actual = sha256_hex(view[:before])
    expected = found.group(2).decode("ascii")
    if actual != expected:
        raise BundleError(f"{where}: SHA-256 of the file: expected {expected}, found {actual}", hint=DAMAGED)
    major = int(found.group(1))
    if major != FORMAT_MAJOR:
        raise BundleError(
            f"{where}: bundle format {major}: this edgekit reads format {FORMAT_MAJOR}", hint=format_hint(major)
        )
    if before < _END.size:
        raise BundleError(f"{where}: {len(data)} bytes are too few for a bundle", hint=DAMAGED)
    return before - _END.size


def format_hint(major: int) -> str:
    """Returns what to do about a bundle of another major format."""
    if major > FORMAT_MAJOR:
        return "it was made by a newer edgekit: upgrade edgekit on this machine, or compile again with this version"
    return "it was made by an older edgekit: compile again with this version"


def _read_directory(view: memoryview, end: int, where: str) -> tuple[list[Member], int]:
    """Returns the members, and where the directory begins."""
    record = _End(*_END.unpack_from(view, end))
    wanted = record._replace(
        signature=0x06054B50,
        disk=0,
        directory_disk=0,
        entries_on_disk=record.entries,
        directory_offset=end - record.directory_size,
        comment_length=len(view) - end - _END.size,
    )
    _check_record(record, wanted, f"{where}: end record")
    if not 1 <= record.entries <= MAX_FILES:
        raise BundleError(f"{where}: end record: expected 1 to {MAX_FILES} files, found {record.entries}", hint=DAMAGED)
    members: list[Member] = []
    position = record.directory_offset
    for number in range(record.entries):
        place = f"{where}: central directory, file {number}"
        if position + _CENTRAL.size > end:
            raise BundleError(f"{place}: the directory ends at byte {end}, inside this record", hint=DAMAGED)
        central = _Central(*_CENTRAL.unpack_from(view, position))
        name = bytes(view[position + _CENTRAL.size : min(position + _CENTRAL.size + central.name_length, end)]).decode(
            "latin-1"
        )
        check_name(name, where=place)
        member = Member(name=name, size_bytes=central.size, crc32=central.crc32, offset=central.header_offset)
        _check_record(central, _central(member), f"{place} ({name})")
        members.append(member)
        position += _CENTRAL.size + len(name)
    if position != end:
        raise BundleError(
            f"{where}: central directory: expected its end at byte {end}, found it at {position}", hint=DAMAGED
        )
    _check_order([member.name for member in members], where)
    return members, record.directory_offset


def _check_order(names: list[str], where: str) -> None:
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{where}: {double} is stored {names.count(double)} times, expected once", hint=DAMAGED)
    if names != stored_order(names):
        raise BundleError(f"{where}: expected {MANIFEST_NAME} first, then the other files sorted by name", hint=DAMAGED)


def stored_order(names: Iterable[str]) -> list[str]:
    """Returns the names in the order in which a bundle stores them: the manifest, then the others sorted."""
    return [MANIFEST_NAME, *sorted(name for name in names if name != MANIFEST_NAME)]


def _check_locals(view: memoryview, members: list[Member], directory: int, where: str) -> None:
    position = 0
    for member in members:
        place = f"{where}: {member.name}"
        if member.offset != position:
            raise BundleError(f"{place}: expected its header at byte {position}, found {member.offset}", hint=DAMAGED)
        if member.stop > directory:
            raise BundleError(
                f"{place}: expected its content to end by byte {directory}, found {member.stop}", hint=DAMAGED
            )
        _check_record(_Local(*_LOCAL.unpack_from(view, position)), _local(member), f"{place}: local header")
        name = bytes(view[position + _LOCAL.size : member.start])
        if name != member.name.encode("ascii"):
            raise BundleError(f"{place}: local header: expected the same name, found {name[:200]!r}", hint=DAMAGED)
        crc32 = zlib.crc32(view[member.start : member.stop])
        if crc32 != member.crc32:
            raise BundleError(f"{place}: CRC-32: expected {member.crc32:08x}, found {crc32:08x}", hint=DAMAGED)
        position = member.stop
    if position != directory:
        raise BundleError(f"{where}: {directory - position} bytes at {position} belong to no file", hint=DAMAGED)


def _check_record(found: NamedTuple, expected: NamedTuple, place: str) -> None:
    for field, value, wanted in zip(found._fields, found, expected, strict=True):
        if value != wanted:
            raise BundleError(f"{place}: {field}: expected {wanted:#x}, found {value:#x}", hint=DAMAGED)
