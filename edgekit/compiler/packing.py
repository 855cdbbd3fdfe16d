"""From chosen candidates to the bundle's manifest and files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

import edgekit
from edgekit.bundle import array_bytes, store_name, write_bundle
from edgekit.bundle.manifest import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    CompressedFile,
    EngineRecord,
    Entry,
    Golden,
    Manifest,
)
from edgekit.compiler.candidates import Candidate, is_integer
from edgekit.program import Program
from edgekit.runtime.tasks import spec_to_dict
from edgekit.runtime.tasks.base import Spec
from edgekit.targets import Requires, Target

__all__ = ["Packed", "pack"]

Array = np.ndarray[Any, Any]
_PRODUCERS = ("torch", "onnx", "onnxscript", "openvino")


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A candidate on its way into the bundle."""

    target: Target
    candidate: Candidate
    latency: Literal["measured", "unverified"]


def pack(
    output: Path,
    program: Program,
    packed: Sequence[Packed],
    golden: Mapping[str, Array],
    *,
    golden_source: Literal["synthetic", "user"],
    spec: Spec | None,
    report: Mapping[str, Any],
) -> Manifest:
    """Writes the bundle, atomically; equal graphs and arrays are stored once.

    Returns:
        The manifest with hashes and digest.

    Raises:
        UserError: The file cannot be written; the old one is intact.
    """
    files: dict[str, bytes] = {}

    def store(folder: str, data: bytes, suffix: str) -> str:
        name = store_name(folder, data, suffix)
        files[name] = data
        return name

    inputs = {name: store("golden", array_bytes(array), ".npy") for name, array in golden.items()}
    entries = []
    for item in packed:
        candidate, target = item.candidate, item.target
        engine = candidate.engine
        record = None
        if engine is not None:
            streams = candidate.compressed
            record = EngineRecord(
                kind=engine.kind,
                files={
                    role: store("engines", data, f".{role}")
                    for role, data in engine.files.items()
                    if role not in streams
                },
                zlib={
                    role: CompressedFile(file=store("engines", data, ".zlib"), size_bytes=len(engine.files[role]))
                    for role, data in streams.items()
                },
            )
        accuracy = candidate.report.accuracy
        entries.append(
            Entry(
                target=target.name,
                backend=target.backend,
                precision=candidate.precision,
                graph=store("graphs", candidate.graph.data, ".onnx"),
                engine=record,
                options=dict(candidate.options),
                inputs=candidate.graph.inputs,
                outputs=candidate.graph.outputs,
                requires=_requires(target, candidate.precision),
                golden=Golden(
                    inputs=inputs,
                    outputs={
                        name: store("golden", array_bytes(array), ".npy") for name, array in candidate.golden.items()
                    },
                    rel_l2=candidate.golden_limit,
                    source=golden_source,
                ),
                latency=item.latency,
                accuracy="none" if accuracy is None else accuracy.kind,
            )
        )
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR),
        producer={"edgekit": edgekit.__version__, **_versions(), **_zlib_version(packed)},
        name=program.name,
        task=None if spec is None else spec_to_dict(spec),
        entries=tuple(entries),
    )
    return write_bundle(output, manifest=manifest, files=files, report=report)


def _zlib_version(packed: Sequence[Packed]) -> dict[str, str]:
    """The version on which the bytes of compressed files depend; nothing where there are none."""
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION} if any(item.candidate.compressed for item in packed) else {}


def _requires(target: Target, precision: str) -> Requires:
    """The target's demands on a machine; a float engine needs no integer instructions."""
    return target.requires if is_integer(precision) else replace(target.requires, cpu_flags_any=())


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PRODUCERS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
