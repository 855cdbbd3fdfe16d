"""The ``.edge`` file: write, read, verify, extract. Imports no engine library and nothing of the compiler."""

from __future__ import annotations

from edgekit.bundle.arrays import array_bytes
from edgekit.bundle.compression import compressed
from edgekit.bundle.extract import extract
from edgekit.bundle.manifest import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    CompressedFile,
    EngineRecord,
    Entry,
    Golden,
    Manifest,
    StoredFile,
)
from edgekit.bundle.read import Bundle, bundle_from_bytes, read_bundle
from edgekit.bundle.write import store_name, write_bundle

__all__ = [
    "FORMAT_MAJOR",
    "FORMAT_MINOR",
    "Bundle",
    "CompressedFile",
    "EngineRecord",
    "Entry",
    "Golden",
    "Manifest",
    "StoredFile",
    "array_bytes",
    "bundle_from_bytes",
    "compressed",
    "extract",
    "read_bundle",
    "store_name",
    "write_bundle",
]
