"""The OpenVINO backend: CPU, and GPU and NPU by the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekit.backends.base import Engine, EngineTimes, PortableGraph, Probe, Rehearsal, Verdict
from edgekit.backends.batch import parse_batch
from edgekit.backends.openvino.capability import precisions_of
from edgekit.backends.openvino.ir import emit_ir
from edgekit.backends.openvino.library import INSTALL_HINT, openvino
from edgekit.backends.openvino.options import compile_options, engine_table
from edgekit.backends.openvino.timing import measure_times
from edgekit.errors import BackendMissing
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.targets import Target

__all__ = ["OpenVinoBackend"]


@dataclass(frozen=True, kw_only=True)
class OpenVinoBackend:
    """Emits IR on any machine; opens it where the device is."""

    name: str = "openvino"
    tells_times: bool = True

    def probe(self) -> Probe:
        """Looks for the library and its devices; never raises."""
        try:
            library = openvino()
        except BackendMissing as error:
            return Probe(version=None, missing=error.message, hint=error.hint)
        try:
            devices = tuple(library.Core().available_devices)
        except RuntimeError as error:  # a damaged installation: its plugins cannot be listed
            return Probe(version=None, missing=f"OpenVINO cannot list its devices: {error}", hint=INSTALL_HINT)
        return Probe(version=str(library.__version__), devices=devices)

    def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
        """Says for each node whether the target can run it."""
        # Here, so that the device, which has no onnx, can probe the backend.
        from edgekit.backends.openvino.support import node_verdicts

        table = engine_table(target)
        problem = table.batch_problem
        refused = [spec for spec in graph.inputs if spec.shape[:1] == (None,)] if problem else []
        reason = f"a dynamic batch: {problem}"
        return (
            *(Verdict(node=spec.name, operator="Input", supported=False, reason=reason) for spec in refused),
            *node_verdicts(graph, table.device),
        )

    def precisions_here(self, target: Target) -> tuple[str, ...]:
        """Returns the target's precisions that this machine's device computes in, in the target's order.

        Where the device is not on this machine there is nothing to ask, and all of the target's precisions are
        returned.
        """
        return precisions_of(target, engine_table(target).device)

    def options(self, target: Target, precision: str) -> dict[str, Any]:
        """Returns device and compile properties, with the inference precision always stated."""
        return compile_options(target, precision)

    def build(self, graph: PortableGraph, target: Target) -> Engine:
        """Emits the IR: the same bytes for the same graph, in every process."""
        sizes = engine_table(target).batch
        batch = None if sizes is None else parse_batch(sizes)
        findings = []
        if batch is not None and batch.smallest < batch.best < batch.largest:
            findings.append(f"OpenVINO has no best batch size: of batch {batch} it keeps the largest alone")
        return Engine(
            kind="openvino-ir",
            files=emit_ir(graph.data, largest_batch=None if batch is None else batch.largest),
            findings=tuple(findings),
            options=self.options(target, graph.precision),
            inputs=graph.inputs,
            outputs=graph.outputs,
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

    def times(self, engine: Engine, feeds: Mapping[str, Any], *, threads: int | None = None) -> EngineTimes:
        """Runs the engine with OpenVINO's counters on; they slow it by a few percent."""
        properties = {**engine.options["properties"], "PERF_COUNT": True}
        counting = replace(engine, options={**engine.options, "properties": properties, "cache": False})
        return measure_times(counting, feeds, threads=threads)

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        """Returns None: the real engine is emitted here, there is nothing to rehearse."""
        return None
