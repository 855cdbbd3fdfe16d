"""The contract of a backend: one folder, one line in ``edgekit.backends``, one conformance subclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgekit.runtime.session import Session
from edgekit.targets import Target
from edgekit.tensorspec import TensorSpec

__all__ = ["Backend", "Engine", "EngineTimes", "Origin", "PortableGraph", "Probe", "Rehearsal", "Verdict"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where in the model's source a node comes from, as far as it is known.

    Attributes:
        module: Dotted path of the module; empty for the model itself, and where it is not known.
        source: File, line and code, such as ``heads.py, line 12: return torch.linalg.det(x)``; empty where not known.
    """

    module: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class PortableGraph:
    """A strongly typed ONNX graph, with explicit Q/DQ where it is int8.

    Attributes:
        data: The serialized ONNX model, self-contained.
        precision: What it was made for: ``int8``, ``fp16``, ``bf16`` or ``fp32``.
        inputs, outputs: Its interface.
        quantized_layers: Names of the compute nodes planned to run in int8.
        origins: Node name to where it comes from; nodes that passes made have none.
    """

    data: bytes = field(repr=False)
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantized_layers: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False, compare=False)

    def described(self, node: str, operator: str) -> str:
        """Returns how a message speaks of a node: operator, name, module and line of source, as far as known."""
        origin = self.origins.get(node, Origin())
        parts = [f"{operator} '{node}'"]
        if origin.module and origin.module != node:
            parts.append(f"of module '{origin.module}'")
        if origin.source:
            parts.append(f"({origin.source})")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What a backend built: files and the options to open them with.

    Attributes:
        kind: Key of the session table in ``edgekit.runtime.sessions``.
        files: Role (``xml``, ``bin``, ``plan``) to content.
        options: Options for opening, in the backend's words, JSON-able.
        findings: What was asked for and the library cannot do, a sentence each, for the report.
        compress: Roles that a bundle stores compressed: it pays, and unpacking them takes little beside opening.
    """

    kind: str
    files: Mapping[str, bytes] = field(repr=False)
    options: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    findings: tuple[str, ...] = ()
    compress: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Whether a backend can work here: its version, or the reason why it cannot and what to do.

    Where the library is there and no device is, ``hint`` says why.
    """

    version: str | None
    devices: tuple[str, ...] = ()
    missing: str | None = None
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the backend can run one node of a portable graph, and if not, why."""

    node: str
    operator: str
    supported: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineTimes:
    """Where the time of an engine goes.

    Attributes:
        total: Seconds of an inference.
        layers: Seconds of its layers by name; several layers of one name are not told apart and are missing.
    """

    total: float
    layers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Outcome of building a graph once with a related builder on this machine, to fail here and not on the device."""

    builder: str
    built: bool
    engine_size_bytes: int | None = None
    build_s: float | None = None
    reason: str = ""


class Backend(Protocol):
    """Composition only: a backend is an object with these methods."""

    @property
    def name(self) -> str: ...

    @property
    def tells_times(self) -> bool:
        """Whether :meth:`times` can say where an engine's time goes."""

    def probe(self) -> Probe:
        """Looks for the library and its devices; never raises."""

    def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
        """Says for each node whether the target can run it."""

    def precisions_here(self, target: Target) -> tuple[str, ...]:
        """Returns the target's precisions that this machine can run, in its order: the candidates worth timing.

        Where the target's device is not on this machine, all of them: nothing here can tell.

        Raises:
            BackendMissing: The library is needed to tell, and is not installed.
        """

    def options(self, target: Target, precision: str) -> dict[str, Any]:
        """The options that an engine of this precision is built or opened with, JSON-able, for the bundle."""

    def build(self, graph: PortableGraph, target: Target) -> Engine:
        """Emits the engine.

        Raises:
            BackendMissing: The library is not installed.
            StageError: The backend refuses the graph; names the node.
        """

    def open(self, engine: Engine, *, threads: int | None = None, streams: int | None = None) -> Session:
        """Opens a built engine on this machine; what ran is in ``session.layers()``."""

    def times(self, engine: Engine, feeds: Mapping[str, Any], *, threads: int | None = None) -> EngineTimes:
        """Runs an engine on this machine and says where its time goes.

        Raises:
            StageError: The backend cannot tell (:attr:`tells_times`), or the engine failed.
        """

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        """Parses and builds a graph whose engine is made on the device; None where no builder is installed."""
