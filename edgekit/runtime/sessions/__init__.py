"""Inference sessions: an explicit table from the kind of an engine to the module that opens it, imported on need."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from edgekit.errors import BackendMissing, UserError
from edgekit.runtime.session import Session
from edgekit.runtime.tensorrt import FLAVOURS
from edgekit.tensorspec import TensorSpec

__all__ = ["missing_backend", "missing_device", "open_session"]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of engine.

    Attributes:
        name: As in the bundle's manifest.
        module: Where it is opened; has ``open_engine`` and ``devices``.
        package: The library that the module imports.
        title: What people call the library.
        hint: How to install it.
        arguments: What the module's functions are told besides: one module may open several kinds.
        is_code: Whether opening an engine can run code that it brings.
    """

    name: str
    module: str
    package: str
    title: str
    hint: str
    arguments: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    is_code: bool = False


_KINDS: tuple[_Kind, ...] = (
    _Kind(
        name="openvino-ir",
        module="edgekit.runtime.sessions.openvino",
        package="openvino",
        title="OpenVINO",
        hint="install it: pip install 'edgekit[openvino]'",
    ),
    *(
        _Kind(
            name=kind,
            module="edgekit.runtime.sessions.tensorrt",
            package=flavour.package,
            title=flavour.title,
            hint=flavour.install_hint,
            arguments=MappingProxyType({"kind": kind}),
            is_code=True,
        )
        for kind, flavour in FLAVOURS.items()
    ),
)


def open_session(
    kind: str,
    files: Mapping[str, bytes],
    options: Mapping[str, Any],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    threads: int | None = None,
    streams: int | None = None,
    cache_dir: Path | None = None,
    trusted: bool = False,
    cuda_graphs: bool = True,
) -> Session:
    """Opens an engine.

    Args:
        kind: ``openvino-ir``, ``tensorrt-plan`` or ``tensorrt-rtx-plan``.
        files: Role (``xml``, ``bin``, ``plan``) to content; nothing is read from disk.
        options: Options of the engine, in the backend's words.
        inputs: The interface that the engine must have.
        outputs: The same for its outputs.
        threads: CPU threads of the engine; None leaves it to the engine's options.
        streams: Inferences that run side by side; None leaves it to the engine's options.
        cache_dir: Folder for compiled engines, so that the next opening is faster; None caches only where the options
            ask for it, in the user's cache folder.
        trusted: The user says that the engine comes from someone they trust, or this process made it. A TensorRT plan
            is opened only then: deserializing it can run code.
        cuda_graphs: Launch inferences as CUDA graphs where the engine is of an NVIDIA GPU and that is possible.

    Raises:
        BackendMissing: The library, or the device that the options name, is not on this machine.
        UserError: Less than one thread or stream, an unusable cache folder, or an engine that is code and not trusted.
        StageError: The library refuses the engine.
    """
    for name, value in (("threads", threads), ("streams", streams)):
        if value is not None and value < 1:
            raise UserError(f"{name}: expected at least 1, got {value}")
    entry = _kind(kind)
    module = _module(entry)
    if entry.is_code and not trusted:
        raise UserError(
            f"this engine is a {entry.title} plan, and opening a plan can run code that is in it",
            hint="if you trust where the bundle comes from, say so: --trust-plan, or load(..., trust_plan=True)",
        )
    session: Session = module.open_engine(
        files=files,
        options=options,
        inputs=inputs,
        outputs=outputs,
        threads=threads,
        streams=streams,
        cache_dir=cache_dir,
        cuda_graphs=cuda_graphs,
        **entry.arguments,
    )
    return session


def missing_backend(kind: str) -> BackendMissing | None:
    """Returns the error that says which library this machine lacks for a kind of engine, or None; imports nothing."""
    try:
        found = _kind(kind)
    except BackendMissing as error:
        return error
    if importlib.util.find_spec(found.package) is not None:
        return None
    return BackendMissing(f"{found.title} is not installed; engines of kind '{kind}' need it", hint=found.hint)


def missing_device(kind: str, device: str) -> str | None:
    """Says that a kind's library does not find the device, with what it found instead, or None.

    Args:
        kind: Kind of engine, whose library is installed.
        device: ``CPU``, ``GPU`` or ``NPU``; empty asks for none.

    Raises:
        BackendMissing: The library is not installed, or broken; or the way to its devices is missing.
    """
    if not device:
        return None
    entry = _kind(kind)
    devices: tuple[str, ...] = _module(entry).devices(**entry.arguments)
    if any(name == device or name.startswith(f"{device}.") for name in devices):
        return None
    return f"{entry.title} finds no {device} here, only {', '.join(devices) if devices else 'nothing'}"


def _kind(name: str) -> _Kind:
    for kind in _KINDS:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in _KINDS)
    raise BackendMissing(
        f"this version of edgekit opens no engines of kind '{name}', only {known}",
        hint="update edgekit on this machine",
    )


def _module(kind: _Kind) -> ModuleType:
    error = missing_backend(kind.name)
    if error is not None:
        raise error
    try:
        return importlib.import_module(kind.module)
    except ImportError as broken:
        raise BackendMissing(f"{kind.title} is installed but cannot be imported: {broken}", hint=kind.hint) from broken
