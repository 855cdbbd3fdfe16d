"""The manifest of a ``.edge`` bundle, as frozen dataclasses; ``manifest.json`` is its JSON form.

Layout inside the zip (which itself compresses nothing)::

    manifest.json                 this file; the only entry without a hash in the manifest
    report.json                   measurements and history (outside the content digest)
    graphs/<sha256>.onnx          portable graphs; entries refer to them, equal ones are shared
    engines/<sha256>.<suffix>     engine files (OpenVINO: .xml and .bin; TensorRT: .plan, or .zlib where compressed)
    golden/<sha256>.npy           golden inputs and reference outputs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec

__all__ = [
    "FORMAT_MAJOR",
    "FORMAT_MINOR",
    "ZLIB_SINCE_MINOR",
    "CompressedFile",
    "EngineRecord",
    "Entry",
    "Golden",
    "Manifest",
    "StoredFile",
]

FORMAT_MAJOR = 1
FORMAT_MINOR = 1
ZLIB_SINCE_MINOR = 1
"""The first minor whose engines may have compressed files."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Size and hash of one file in the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompressedFile:
    """A file of an engine that is stored as a zlib stream.

    Attributes:
        file: Path of the stream in the bundle; size and hash in ``files`` are the stream's.
        size_bytes: Size of the plain content.
    """

    file: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """A built engine.

    Attributes:
        kind: Which session opens it: ``openvino-ir`` or ``tensorrt-plan`` or ``tensorrt-rtx-plan``.
        files: Role (``xml``, ``bin``, ``plan``) to path in the bundle, for files that are stored as they are.
        zlib: Role to the stream, for files that are stored compressed. A role stands in one of the two tables.
    """

    kind: str
    files: dict[str, str]
    zlib: dict[str, CompressedFile] = field(default_factory=dict)

    @property
    def stored(self) -> dict[str, str]:
        """Role to path in the bundle, of all files."""
        return {**self.files, **{role: part.file for role, part in self.zlib.items()}}


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Golden inputs with the outputs that the engine must reproduce, taken before argmax and NMS.

    Attributes:
        inputs: Input name to path of an ``.npy`` file: one array (N, ...) of N samples.
        outputs: Output name to path of an ``.npy`` file: reference outputs, first dimension N.
        rel_l2: Largest allowed ``||engine - reference|| / ||reference||`` per output, over all samples together.
        source: ``synthetic`` (seeded, no user data) or ``user``.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    rel_l2: float
    source: Literal["synthetic", "user"] = "synthetic"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the bundle holds for one target in one precision.

    A target whose engine was built here has one entry, the shipped one. A target that builds on the device has one
    entry per candidate, best first.

    Attributes:
        target: Target name.
        backend: Backend name.
        precision: ``int8``, ``fp16``, ``bf16`` or ``fp32``.
        graph: Path of the portable graph.
        engine: The built engine, or None when the engine is built on the device.
        options: Options for building or compiling on the device, in the backend's words.
        inputs, outputs: The engine's interface.
        requires: Machine check, copied from the target.
        golden: Self-test data.
        latency: ``measured`` on the target's machine, or ``unverified``.
        accuracy: ``measured`` on the engine, ``simulated`` on the fake-quantized program, or ``none``.
    """

    target: str
    backend: str
    precision: str
    graph: str
    engine: EngineRecord | None
    options: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    requires: Requires
    golden: Golden
    latency: Literal["measured", "unverified"]
    accuracy: Literal["measured", "simulated", "none"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole manifest.

    Attributes:
        format: ``(major, minor)``; a reader reads every minor of its major, and ignores unknown keys of a newer minor.
        producer: Versions of what made the bundle (edgekit, torch, onnx, openvino).
        name: Model name, for people.
        task: The task spec as a plain table, with the key ``task`` naming the task; None for a raw model.
        entries: One per target and shipped candidate, in the order in which ``load`` prefers them.
        files: Every file but ``manifest.json``: path to size and hash.
        content_digest: SHA-256 over everything but measurements (``report.json`` and this field).
    """

    format: tuple[int, int]
    producer: dict[str, str]
    name: str
    task: dict[str, Any] | None
    entries: tuple[Entry, ...]
    files: dict[str, StoredFile] = field(default_factory=dict)
    content_digest: str = ""
