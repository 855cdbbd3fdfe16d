"""The TensorRT backend, in two flavours.

An engine of TensorRT belongs to one GPU and one release, so the device builds it. One of TensorRT-RTX runs on every RTX
GPU of the compute capabilities that it was built for, and its builder needs none, so compile builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.backends.base import Engine, EngineTimes, PortableGraph, Probe, Rehearsal, Verdict
from edgekit.backends.tensorrt.options import build_options, engine_table
from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.runtime.cuda import device_facts
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.runtime.tensorrt import TENSORRT_RTX, Flavour
from edgekit.runtime.tensorrt.building import Built, build_plan, is_installed
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

    @property
    def tells_times(self) -> bool:
        """No: see :meth:`times`."""
        return False

    def probe(self) -> Probe:
        """Looks for the library and NVIDIA GPUs; never raises."""
        try:
            library = self.flavour.library()
        except BackendMissing as error:
            return Probe(version=None, missing=error.message, hint=error.hint)
        version = str(library.__version__)
        try:
            gpus = device_facts()
        except BackendMissing as error:
            return Probe(version=version, hint=error.message)
        return Probe(version=version, devices=tuple(f"GPU.{index} ({gpu.name})" for index, gpu in enumerate(gpus)))

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
        """Builds the engine where the flavour's library can do that without the device.

        Raises:
            BackendMissing: The library is not installed.
            StageError: It refuses the graph; names the nodes.
            UserError: Engines of this flavour are built on their device.
        """
        if not self.flavour.builds_anywhere:
            raise UserError(
                f"target '{target.name}': a {self.flavour.title} engine is built on its device",
                hint='the bundle carries the portable graph and its build options: set build = "device"',
            )
        self.flavour.library()
        options = self.options(target, graph.precision)
        built = build_plan(self.flavour, graph.data, options)
        if built.plan is None:
            raise StageError(
                f"{built.builder} refused the {graph.precision} graph: {_reason(built, graph)}",
                hint="write this part of the model with other operators, or compile for another target",
            )
        return Engine(
            kind=self.flavour.engine_kind,
            files={"plan": built.plan},
            options={**options, "builder": built.builder},
            inputs=graph.inputs,
            outputs=graph.outputs,
            # Weights barely shrink, but the source text of kernels does, and int8 engines carry much of it.
            compress=("plan",),
        )

    def open(self, engine: Engine, *, threads: int | None = None, streams: int | None = None) -> Session:
        """Opens a built engine on this machine; it was made by this process, so it is trusted."""
        return open_session(
            engine.kind,
            engine.files,
            engine.options,
            engine.inputs,
            engine.outputs,
            threads=threads,
            streams=streams,
            trusted=True,
        )

    def times(self, engine: Engine, feeds: Mapping[str, Any], *, threads: int | None = None) -> EngineTimes:
        """Refuses: a profiler on the device times the layers, and this backend does not read it.

        Raises:
            StageError: Always.
        """
        raise StageError(f"{self.flavour.title} was asked for the times of layers, which edgekit does not read from it")

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        """Builds the graph once with TensorRT-RTX, whose builder needs no GPU; None where it is not installed.

        A graph that breaks a rule of :meth:`supports` is not built: TensorRT-RTX takes more than the releases on
        devices, and some of it with another meaning (uint8 tensors as int8).
        """
        if not is_installed(TENSORRT_RTX):
            return None
        refused = [verdict for verdict in self.supports(graph, target) if not verdict.supported]
        if refused:
            reason = "; ".join(f"{graph.described(item.node, item.operator)}: {item.reason}" for item in refused)
            return Rehearsal(builder=f"rules of {self.flavour.title}", built=False, reason=reason)
        built = build_plan(TENSORRT_RTX, graph.data, self.options(target, graph.precision))
        return Rehearsal(
            builder=built.builder,
            built=built.plan is not None,
            engine_size_bytes=None if built.plan is None else len(built.plan),
            build_s=built.build_s,
            reason=_reason(built, graph),
        )


def _reason(built: Built, graph: PortableGraph) -> str:
    """Why there is no engine; the nodes at which the parser stopped, by where they come from."""
    if not built.refused:
        return built.reason
    return "; ".join(f"{graph.described(item.node, item.operator)}: {item.reason}" for item in built.refused)
