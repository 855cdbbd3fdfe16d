"""Parses and builds one graph with TensorRT, in a process of its own.

Run as ``python -m edgekit.runtime.tensorrt.builder FOLDER PACKAGE``: reads ``graph.onnx`` and ``options.json`` in
the folder and writes ``outcome.json`` there, and ``engine.plan`` where there is an engine; how far it is goes to stdout
as lines of JSON. Where there is ``timings.in``, which may be empty, the builder goes on from these timings of kernels,
and leaves them with what it added in ``timings.out``. The library is native code that may end the process on a graph
it does not expect, so whoever needs an answer must not be in that process.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.runtime.tensorrt import Messages

__all__ = ["Made", "main", "parse_and_build"]


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a build gave.

    Attributes:
        outcome: ``builder`` (version), ``build_s``, ``reason`` (why there is no engine), ``refused`` (the nodes at
            which the parser stopped), ``warnings``, ``timings_dropped`` (why the timings given are not used).
        plan: The engine, a buffer of bytes; None where there is none.
        timings: The timing cache after the build, a buffer of bytes; None where there is none.
    """

    outcome: Mapping[str, Any]
    plan: Any = None
    timings: Any = None


def parse_and_build(library: Any, data: bytes, options: Mapping[str, Any], *, timings: bytes | None = None) -> Made:
    """Builds a strongly typed network once.

    Args:
        library: The ``tensorrt`` or ``tensorrt_rtx`` module.
        data: Serialized ONNX model.
        options: As made by :func:`edgekit.backends.tensorrt.options.build_options`.
        timings: A timing cache; empty: a new one; None: none that is kept.
    """
    started = time.perf_counter()
    messages = Messages(library)
    outcome: dict[str, Any] = {"builder": str(library.__version__), "build_s": None, "reason": "", "refused": []}
    outcome["warnings"], outcome["timings_dropped"] = messages.warnings, ""
    builder = library.Builder(messages.logger)
    # From TensorRT 11 on every network is strongly typed, and the flag is gone.
    typed = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = library.OnnxParser(network, messages.logger)
    if not parser.parse(data):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        outcome["refused"] = [
            {"node": error.node_name(), "operator": error.node_operator(), "reason": error.desc()} for error in errors
        ]
        outcome["reason"] = "; ".join(
            f"node '{item['node']}' ({item['operator']}): {item['reason']}" for item in outcome["refused"]
        )
        return Made(outcome=outcome)
    config = builder.create_builder_config()
    monitor = _monitor(library)
    if monitor is not None:
        config.progress_monitor = monitor
    _configure(library, builder, network, config, options)
    cache = None
    if timings is not None:
        cache, outcome["timings_dropped"] = _timing_cache(config, timings, messages)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        outcome["reason"] = messages.reason()
        return Made(outcome=outcome)
    outcome["build_s"] = round(time.perf_counter() - started, 3)
    return Made(outcome=outcome, plan=plan, timings=None if cache is None else cache.serialize())


def _timing_cache(config: Any, timings: bytes, messages: Messages) -> tuple[Any, str]:
    """Gives the configuration a timing cache: the one given where the library takes it, else a new one.

    A cache that it cannot read it replaces by an empty one, and says so in the log alone.

    Source: TensorRT documentation, "Optimizing Builder Performance", "Timing Cache".

    Returns:
        The cache, which must live until the engine is built, and why the given one is not used.
    """
    dropped = ""
    if timings:
        before = len(messages.warnings)
        cache = config.create_timing_cache(timings)
        dropped = messages.since(before)
        if cache is not None and not dropped:
            if config.set_timing_cache(cache, False):
                return cache, ""
            dropped = messages.since(before)
        dropped = dropped if dropped else "the builder does not take it"
    cache = config.create_timing_cache(b"")
    return (cache if cache is not None and config.set_timing_cache(cache, False) else None), dropped


def _configure(library: Any, builder: Any, network: Any, config: Any, options: Mapping[str, Any]) -> None:
    if options["workspace_mib"] is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    if options["builder_optimization_level"] is not None:
        config.builder_optimization_level = options["builder_optimization_level"]
    config.profiling_verbosity = getattr(library.ProfilingVerbosity, options["profiling_verbosity"].upper())
    capabilities = options["compute_capabilities"]
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}"), index)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if not any(-1 in tuple(item.shape) for item in inputs):
        return
    # An optimization profile says which sizes a dynamic dimension may take; without it the builder refuses.
    profile = builder.create_optimization_profile()
    for item in inputs:
        sizes = [tuple(batch if size == -1 else size for size in item.shape) for batch in options["batch"]]
        profile.set_shape(item.name, *sizes)
    config.add_optimization_profile(profile)


def _monitor(library: Any) -> Any:
    """Tells of the builder's outermost phases; None for a library without progress monitors.

    Source: TensorRT API, ``IProgressMonitor``: calls may come from several threads.
    """
    base: Any = getattr(library, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                self._tell(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                self._tell(phase_name, self._steps.pop(phase_name))

        def _tell(self, phase: str, done: int) -> None:
            line = json.dumps({"phase": phase, "done": done, "of": self._steps.get(phase, done)})
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    return Monitor()


def main(folder: Path, package: str) -> None:
    """Reads the request in the folder and leaves outcome and engine there."""
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    given = folder / "timings.in"
    made = parse_and_build(
        importlib.import_module(package),
        (folder / "graph.onnx").read_bytes(),
        options,
        timings=given.read_bytes() if given.exists() else None,
    )
    for name, content in (("engine.plan", made.plan), ("timings.out", made.timings)):
        if content is not None:
            (folder / name).write_bytes(memoryview(content))
    (folder / "outcome.json").write_text(json.dumps(made.outcome), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
