"""``manifest.json`` into a checked :class:`~edgekit.bundle.manifest.Manifest`, strictly."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.bundle.compression import LARGEST_RATIO, largest_plain_bytes
from edgekit.bundle.digest import REPORT_NAME, canonical_json, content_digest, parse_json
from edgekit.bundle.manifest import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    ZLIB_SINCE_MINOR,
    EngineRecord,
    Entry,
    Manifest,
    StoredFile,
)
from edgekit.bundle.structure import DAMAGED, MANIFEST_NAME, check_name, format_hint
from edgekit.config import from_dict
from edgekit.errors import BundleError, ConfigError

__all__ = ["MAX_MANIFEST_BYTES", "parse_manifest"]

MAX_MANIFEST_BYTES = 16 << 20
_ROLE = re.compile(r"[a-z][a-z0-9]{0,15}")


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Reads the manifest and checks everything in it that needs no other file.

    Checked in this order: JSON, format version, canonical form, keys and types, content digest, file names, that
    entries refer to listed files and every listed file is referred to.

    Args:
        data: The bytes of ``manifest.json``.
        where: The bundle's path, for messages.

    Raises:
        BundleError: Any of these is wrong.
    """
    where = f"{where}: {MANIFEST_NAME}"
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{where}: expected at most {MAX_MANIFEST_BYTES:,} bytes, found {len(data):,}", hint=DAMAGED)
    table = parse_json(data, where=where)
    minor = _check_format(table, where)
    if canonical_json(table, where=where) != data:
        raise BundleError(
            f"{where}: expected canonical JSON (keys sorted, no spaces, ASCII), found another form", hint=DAMAGED
        )
    newer = minor > FORMAT_MINOR
    try:
        manifest = from_dict(Manifest, _known_part(Manifest, table) if newer else table, where=where)
    except ConfigError as error:
        raise BundleError(error.message, hint=error.hint) from error
    digest = content_digest(table)
    if manifest.content_digest != digest:
        raise BundleError(
            f"{where}: content_digest: expected {digest}, found {manifest.content_digest!r}", hint=DAMAGED
        )
    _check_files(manifest, where)
    _check_references(manifest, where, newer=newer)
    return manifest


def _check_format(table: Mapping[str, Any], where: str) -> int:
    found = table.get("format")
    if not (isinstance(found, list) and len(found) == 2 and all(type(part) is int and part >= 0 for part in found)):
        raise BundleError(f"{where}: format: expected [major, minor], found {found!r:.100}", hint=DAMAGED)
    major, minor = found
    if major != FORMAT_MAJOR:
        raise BundleError(
            f"{where}: bundle format {major}.{minor}: this edgekit reads {FORMAT_MAJOR}.{FORMAT_MINOR}",
            hint=format_hint(major),
        )
    return int(minor)


def _check_files(manifest: Manifest, where: str) -> None:
    if not manifest.entries:
        raise BundleError(f"{where}: entries: expected at least one, found none")
    if REPORT_NAME not in manifest.files:
        raise BundleError(f"{where}: files: expected {REPORT_NAME} among them", hint=DAMAGED)
    for name, record in manifest.files.items():
        check_name(name, where=f"{where}: files")
        if name == MANIFEST_NAME:
            raise BundleError(f"{where}: files: {MANIFEST_NAME} cannot list itself", hint=DAMAGED)
        if name != REPORT_NAME and name.split("/")[1].split(".")[0] != record.sha256:
            raise BundleError(
                f"{where}: files: {name}: expected the name to hold its hash {record.sha256!r:.80}", hint=DAMAGED
            )


def _check_references(manifest: Manifest, where: str, *, newer: bool) -> None:
    used = {REPORT_NAME}
    for number, entry in enumerate(manifest.entries):
        place = f"{where}: entries[{number}]"
        for path, name in _references(entry):
            if name not in manifest.files or name == REPORT_NAME:
                raise BundleError(
                    f"{place}.{path}: refers to {name!r:.200}, which the bundle does not hold", hint=DAMAGED
                )
            used.add(name)
        if entry.engine is not None:
            _check_engine(entry.engine, manifest.files, f"{place}.engine", minor=manifest.format[1])
        _check_golden(entry, place)
    unused = sorted(set(manifest.files) - used)
    # A newer minor may refer to files by keys that this reader does not know.
    if unused and not newer:
        raise BundleError(f"{where}: files: no entry refers to {unused[0]} ({len(unused)} such files)", hint=DAMAGED)


def _check_engine(engine: EngineRecord, files: Mapping[str, StoredFile], place: str, *, minor: int) -> None:
    for name, roles in (("files", list(engine.files)), ("zlib", list(engine.zlib))):
        for role in roles:
            if _ROLE.fullmatch(role) is None:
                raise BundleError(f"{place}.{name}: expected a role such as 'xml', found {role!r:.100}", hint=DAMAGED)
    if engine.zlib and minor < ZLIB_SINCE_MINOR:
        raise BundleError(
            f"{place}.zlib: compressed files came with format {FORMAT_MAJOR}.{ZLIB_SINCE_MINOR}, this bundle is of "
            f"{FORMAT_MAJOR}.{minor}",
            hint=DAMAGED,
        )
    for role, part in engine.zlib.items():
        if role in engine.files:
            raise BundleError(f"{place}: '{role}' is stored both plain and compressed, expected one", hint=DAMAGED)
        stored = files[part.file].size_bytes
        if not 1 <= part.size_bytes <= largest_plain_bytes(stored):
            raise BundleError(
                f"{place}.zlib.{role}: {stored:,} stored bytes are said to unpack to {part.size_bytes:,}: expected 1 "
                f"to {largest_plain_bytes(stored):,} (at most {LARGEST_RATIO} times as many)",
                hint=DAMAGED,
            )


def _references(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "graph", entry.graph
    if entry.engine is not None:
        for role, name in entry.engine.files.items():
            yield f"engine.files.{role}", name
        for role, part in entry.engine.zlib.items():
            yield f"engine.zlib.{role}.file", part.file
    for tensor, name in entry.golden.inputs.items():
        yield f"golden.inputs.{tensor}", name
    for tensor, name in entry.golden.outputs.items():
        yield f"golden.outputs.{tensor}", name


def _check_golden(entry: Entry, place: str) -> None:
    names = {spec.name for spec in entry.inputs}
    if set(entry.golden.inputs) != names:
        raise BundleError(f"{place}.golden.inputs: expected {sorted(names)}, found {sorted(entry.golden.inputs)}")
    unknown = set(entry.golden.outputs) - {spec.name for spec in entry.outputs}
    if unknown or not entry.golden.outputs:
        expected = sorted(spec.name for spec in entry.outputs)
        raise BundleError(f"{place}.golden.outputs: expected some of {expected}, found {sorted(entry.golden.outputs)}")


def _known_part(kind: Any, data: Any) -> Any:
    """Returns ``data`` without the keys that the dataclasses in ``kind`` do not have: what a newer minor added."""
    args = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [arg for arg in args if arg is not type(None)]
        return _known_part(kinds[0], data) if len(kinds) == 1 else data
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        hints = typing.get_type_hints(kind)
        return {key: _known_part(hints[key], value) for key, value in data.items() if key in hints}
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis and isinstance(data, list):
        return [_known_part(args[0], item) for item in data]
    if origin is dict and isinstance(data, dict):
        return {key: _known_part(args[1], item) for key, item in data.items()}
    return data
