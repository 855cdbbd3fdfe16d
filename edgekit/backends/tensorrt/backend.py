"""The TensorRT backend, in two flavours. Devices build: an engine belongs to one GPU and one release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.backends.base import Engine, PortableGraph, Probe, Rehearsal, Verdict
from edgekit.backends.tensorrt.devices import gpu_names
from edgekit.backends.tensorrt.flavour import TENSORRT_RTX, Flavour
from edgekit.backends.tensorrt.options import build_options, engine_table
from edgekit.backends.tensorrt.rehearsal import is_installed, rehearse_build
from edgekit.errors import BackendMissing, UserError
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.targets import Target

__all__ = ["TensorRtBackend"]


@dataclass(frozen=True, kw_only=True)
class TensorRtBackend:
    """Judges graphs by rule, rehearses the build where TensorRT-RTX is installed, and records the build options."""

    flavour: Flavour

    @property
    def name(self) -> str:
        """Name in the backend table."""
        return self.flavour.name

    def probe(self) -> Probe:
        """Looks for the library and NVIDIA GPUs; never raises."""
        try:
            library = self.flavour.library()
        except BackendMissing as error:
            return Probe(version=None, devices=gpu_names(), missing=error.message, hint=error.hint)
        return Probe(version=str(library.__version__), devices=gpu_names())

    def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
        """Says for each node whether the target's TensorRT release takes it."""
        # Here, so that the device, which has no onnx, can probe the backend.
        from edgekit.backends.tensorrt.support import graph_verdicts

        return graph_verdicts(graph, target.portable, engine_table(target).release)

    def precisions_here(self, target: Target) -> tuple[str, ...]:
        """Returns all of the target's precisions: the device builds and times them, nothing here can tell."""
        return tuple(target.precisions)

    def options(self, target: Target, precision: str) -> dict[str, Any]:
        """Returns the build options that the bundle carries to the device."""
        return build_options(target, precision)

    def build(self, graph: PortableGraph, target: Target) -> Engine:
        """Refuses: this version writes the graph and its options into the bundle, and builds no engine.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"target '{target.name}': this version of edgekit does not build {self.flavour.title} engines",
            hint="the bundle carries the portable graph and its build options, from which a device builds its engine",
        )

    def open(self, engine: Engine, *, threads: int | None = None, streams: int | None = None) -> Session:
        """Opens a built engine on this machine."""
        return open_session(
            engine.kind,
            engine.files,
            engine.options,
            engine.inputs,
            engine.outputs,
            threads=threads,
            streams=streams,
        )

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        """Builds the graph once with TensorRT-RTX, whose builder needs no GPU; None where it is not installed.

        A graph that breaks a rule of :meth:`supports` is not built: TensorRT-RTX takes more than the releases on
        devices, and some of it with another meaning (uint8 tensors as int8).
        """
        if not is_installed(TENSORRT_RTX):
            return None
        refused = [verdict for verdict in self.supports(graph, target) if not verdict.supported]
        if refused:
            reason = "; ".join(f"node '{item.node}' ({item.operator}): {item.reason}" for item in refused)
            return Rehearsal(builder=f"rules of {self.flavour.title}", built=False, reason=reason)
        return rehearse_build(TENSORRT_RTX, graph.data, self.options(target, graph.precision))
