r"""Canonical JSON, read and written strictly, and the content digest over it.

Canonical: object keys sorted, no spaces, ASCII with ``\uXXXX`` escapes, numbers as Python's ``repr`` writes them (the
shortest decimal that reads back to the same double), no NaN or infinity. One content has one sequence of bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.errors import BundleError

__all__ = ["MAX_JSON_DEPTH", "REPORT_NAME", "canonical_json", "content_digest", "parse_json", "sha256_hex"]

MAX_JSON_DEPTH = 64
REPORT_NAME = "report.json"
_MAX_INTEGER_DIGITS = 20


def sha256_hex(data: bytes | memoryview) -> str:
    """Returns the SHA-256 of ``data`` as 64 lower-case hexadecimal digits.

    Source: FIPS 180-4.

    >>> sha256_hex(b"")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any, *, where: str) -> bytes:
    """Writes plain data as canonical JSON.

    Args:
        value: None, bool, int, float, str, or lists, tuples and tables (with string keys) of them.
        where: What the data is, for messages.

    Raises:
        BundleError: The data holds something that JSON cannot carry; names its place.

    >>> canonical_json({"b": (1, 2.5), "a": None}, where="example")
    b'{"a":null,"b":[1,2.5]}'
    """
    _check_plain(value, where, "", 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def parse_json(data: bytes, *, where: str) -> dict[str, Any]:
    """Reads a JSON object strictly.

    Args:
        data: UTF-8 text.
        where: What the data is, for messages.

    Raises:
        BundleError: Not UTF-8, not JSON, no object, a key twice in one object, NaN, infinity, a number out of range, or
            more than :data:`MAX_JSON_DEPTH` levels.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            keys = [key for key, _ in items]
            double = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {double!r} occurs twice in one object")
        return table

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise BundleError(f"{where}: more than {MAX_JSON_DEPTH} nested levels") from None
    except ValueError as error:
        raise BundleError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected a JSON object, found {type(value).__name__}")
    _check_plain(value, where, "", 0)
    return value


def content_digest(manifest: Mapping[str, Any]) -> str:
    """Returns the SHA-256 that says whether two bundles hold the same, whatever was measured.

    It covers the canonical manifest without the key ``content_digest`` and without the ``files`` record of
    ``report.json``. Every other file is covered through its hash in ``files``.

    Args:
        manifest: The manifest as plain data, with ``files`` filled.
    """
    covered = {key: value for key, value in manifest.items() if key != "content_digest"}
    files = covered.get("files")
    if isinstance(files, Mapping):
        covered["files"] = {name: record for name, record in files.items() if name != REPORT_NAME}
    return sha256_hex(canonical_json(covered, where="manifest"))


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _check_plain(value: Any, where: str, path: str, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise BundleError(f"{where}: {path}: more than {MAX_JSON_DEPTH} nested levels")
    if value is None or isinstance(value, (bool, int)):
        return
    if isinstance(value, str):
        if not _encodable(value):
            raise BundleError(f"{where}: {path}: a string that is no valid Unicode text: {value!r}")
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BundleError(f"{where}: {path}: expected a finite number, found {value}")
        return
    for key, item in _children(value, where, path):
        _check_plain(item, where, f"{path}.{key}" if path else str(key), depth + 1)


def _children(value: Any, where: str, path: str) -> Iterable[tuple[object, Any]]:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not _encodable(key):
                raise BundleError(f"{where}: {path}: expected text as key, found {key!r}")
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    raise BundleError(f"{where}: {path}: JSON cannot carry a value of type {type(value).__name__}")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
