"""Writing a bundle: equal content gives equal bytes, and the file appears whole or not at all."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.bundle.digest import REPORT_NAME, canonical_json, content_digest, sha256_hex
from edgekit.bundle.manifest import FORMAT_MAJOR, FORMAT_MINOR, Manifest, StoredFile
from edgekit.bundle.read import MAX_REPORT_BYTES
from edgekit.bundle.schema import parse_manifest
from edgekit.bundle.structure import (
    MANIFEST_NAME,
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    Member,
    central_record,
    end_comment,
    end_record,
    local_record,
    stored_order,
)
from edgekit.config import to_dict
from edgekit.errors import BundleError, InternalError
from edgekit.files import atomic_write

__all__ = ["store_name", "write_bundle"]


def store_name(folder: str, data: bytes, suffix: str) -> str:
    """Returns the name under which a bundle stores ``data``: equal content gets one name, so it is stored once.

    Args:
        folder: ``graphs``, ``engines`` or ``golden``.
        data: The content.
        suffix: With or without the dot: ``.onnx`` or ``onnx``.

    >>> store_name("graphs", b"", ".onnx")[:24]
    'graphs/e3b0c44298fc1c149'
    """
    return f"{folder}/{sha256_hex(data)}.{suffix.removeprefix('.')}"


def write_bundle(path: Path, *, manifest: Manifest, files: Mapping[str, bytes], report: Mapping[str, Any]) -> Manifest:
    """Writes a ``.edge`` file.

    Args:
        path: The file to make or to replace.
        manifest: With ``files`` and ``content_digest`` empty; they are filled in.
        files: Name (from :func:`store_name`) to content; each is one that an entry refers to.
        report: Measurements and history, plain data; outside the content digest.

    Returns:
        The manifest as a reader of the file will see it.

    Raises:
        BundleError: The report or an option holds something that JSON cannot carry, or the bundle would be too large.
        UserError: The file cannot be written, or the disk is full; an old file is as it was.
        InternalError: The manifest and the files do not fit each other.
    """
    _check_blank(manifest, files)
    report_bytes = canonical_json(report, where=REPORT_NAME)
    if len(report_bytes) > MAX_REPORT_BYTES:
        raise BundleError(f"{REPORT_NAME}: expected at most {MAX_REPORT_BYTES:,} bytes, found {len(report_bytes):,}")
    contents = {**files, REPORT_NAME: report_bytes}
    records = {name: StoredFile(sha256=sha256_hex(data), size_bytes=len(data)) for name, data in contents.items()}
    listed = replace(manifest, files=records)
    final = replace(listed, content_digest=content_digest(to_dict(listed)))
    manifest_bytes = canonical_json(to_dict(final), where=MANIFEST_NAME)
    try:
        seen = parse_manifest(manifest_bytes, where=str(path))
    except BundleError as error:
        raise InternalError(f"the bundle would not be readable: {error.message}") from error
    contents[MANIFEST_NAME] = manifest_bytes
    layout = _layout(contents, path)
    with atomic_write(path, size_bytes=layout.size_bytes) as stream:
        digest = hashlib.sha256()
        for part in _parts(layout, contents):
            digest.update(part)
            stream.write(part)
        stream.write(end_comment(digest.hexdigest()))
    return seen


@dataclass(frozen=True, kw_only=True)
class _Layout:
    members: tuple[Member, ...]
    directory: bytes
    end: bytes
    size_bytes: int


def _check_blank(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    if manifest.files or manifest.content_digest:
        raise InternalError("write_bundle fills in the manifest's files and content_digest; both must be empty")
    if manifest.format != (FORMAT_MAJOR, FORMAT_MINOR):
        raise InternalError(f"expected format {(FORMAT_MAJOR, FORMAT_MINOR)}, found {manifest.format}")
    for name in (MANIFEST_NAME, REPORT_NAME):
        if name in files:
            raise InternalError(f"write_bundle makes {name} itself; it must not be among the files")


def _layout(contents: Mapping[str, bytes], path: Path) -> _Layout:
    if len(contents) > MAX_FILES:
        raise BundleError(f"{path}: expected at most {MAX_FILES} files, found {len(contents)}")
    members: list[Member] = []
    position = 0
    for name in stored_order(contents):
        data = contents[name]
        member = Member(name=name, size_bytes=len(data), crc32=zlib.crc32(data), offset=position)
        members.append(member)
        position = member.stop
        if position > MAX_BUNDLE_BYTES:
            raise _too_large(path, contents)
    directory = b"".join(central_record(member) for member in members)
    end = end_record(count=len(members), directory_offset=position, directory_size=len(directory))
    size_bytes = position + len(directory) + len(end) + len(end_comment("0" * 64))
    if size_bytes > MAX_BUNDLE_BYTES:
        raise _too_large(path, contents)
    return _Layout(members=tuple(members), directory=directory, end=end, size_bytes=size_bytes)


def _too_large(path: Path, contents: Mapping[str, bytes]) -> BundleError:
    total = sum(len(data) for data in contents.values())
    return BundleError(
        f"{path}: the files take {total:,} bytes, a bundle holds at most {MAX_BUNDLE_BYTES:,}",
        hint="compile fewer targets into one bundle",
    )


def _parts(layout: _Layout, contents: Mapping[str, bytes]) -> Iterator[bytes]:
    for member in layout.members:
        yield local_record(member)
        yield contents[member.name]
    yield layout.directory
    yield layout.end
