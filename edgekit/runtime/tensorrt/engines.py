"""The engine of a graph for exactly this machine: from the cache, or built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.errors import StageError, UserError
from edgekit.files import user_cache_folder
from edgekit.progress import Progress, ProgressTask
from edgekit.runtime.cuda import device_facts
from edgekit.runtime.jetson.power import read_power_mode
from edgekit.runtime.jetson.sources import Sources
from edgekit.runtime.tensorrt import Flavour
from edgekit.runtime.tensorrt.building import build_within_memory
from edgekit.runtime.tensorrt.cache import EngineCache, Obtained
from edgekit.runtime.tensorrt.learned import LearnedCache

__all__ = ["engine_cache", "engine_for", "kernel_cache", "machine_facts"]

_TIMINGS_LIMIT_BYTES = 256 << 20
_KERNELS_LIMIT_BYTES = 2 << 30


def engine_cache(folder: Path | None) -> EngineCache:
    """Opens the cache of engines that were built here.

    Args:
        folder: Where it is; None: in the user's cache folder.

    Raises:
        UserError: The folder cannot be used.
    """
    return EngineCache(_folder(folder))


def kernel_cache(folder: Path | None) -> LearnedCache:
    """Opens the cache of kernels that were compiled here; see :func:`engine_cache`."""
    return LearnedCache(_folder(folder) / "kernels", limit_bytes=_KERNELS_LIMIT_BYTES)


def _folder(given: Path | None) -> Path:
    return (user_cache_folder() if given is None else given) / "tensorrt"


def machine_facts(flavour: Flavour) -> dict[str, str]:
    """Returns what an engine depends on besides its graph: library, GPU, driver, power mode.

    Raises:
        BackendMissing: The library, the driver or the GPU is missing.
    """
    library, gpu, mode = flavour.library(), device_facts()[0], read_power_mode(Sources())
    return {
        "library": f"{flavour.title} {library.__version__}",
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
        "power_mode": "" if mode is None else mode.name,
    }


def engine_for(
    flavour: Flavour, graph: bytes, options: Mapping[str, Any], *, cache: EngineCache, build: bool, progress: Progress
) -> Obtained:
    """Returns the plan of a graph for this machine.

    Args:
        flavour: Which library.
        graph: Serialized ONNX model.
        options: As a bundle's entry carries them.
        cache: Where it is looked for, and kept.
        build: Whether it may be built.
        progress: Where it is shown that a build runs, or is waited for.

    Raises:
        BackendMissing: The library, the driver or the GPU is missing.
        UserError: It is not in the cache, and may not be built.
        StageError: The library refuses the graph, or memory is short.
    """
    machine = machine_facts(flavour)
    facts = {
        "graph": hashlib.sha256(graph).hexdigest(),
        "options": json.dumps(dict(options), sort_keys=True),
        **machine,
    }
    timings = LearnedCache(cache.folder / "timings", limit_bytes=_TIMINGS_LIMIT_BYTES)
    remarks: list[str] = []

    def built_now() -> bytes:
        if not build:
            raise UserError(
                f"no engine for this machine ({facts['library']}, {facts['gpu']}) was built from this graph yet",
                hint="build it: edgekit build; or, if you trust where a bundle with plans comes from: --trust-plan",
            )
        kept = timings.find(machine) if flavour.times_kernels else None
        known = None if kept is None else kept.data
        with _Phases(progress) as phases:
            built = build_within_memory(flavour, graph, options, timings=known, on_progress=phases.tell)
        if built.plan is None:
            raise StageError(
                f"{built.builder} refused the graph: {built.reason}",
                hint="compile the model again for the TensorRT release of this machine (the target's engine.version)",
            )
        dropped = built.timings_dropped if kept is None or not kept.dropped else kept.dropped
        if dropped:
            remarks.append(f"all kernels were timed anew, since the timing cache is not usable: {dropped}")
        not_kept = "" if built.timings is None else timings.keep(machine, built.timings)
        if not_kept:
            remarks.append(f"the timing cache was not kept: {not_kept}")
        return built.plan

    obtained = cache.obtain(
        facts, built_now, waiting=lambda: progress.task("waiting for another process that builds an engine", None)
    )
    return replace(obtained, why_built="; ".join([obtained.why_built, *remarks])) if remarks else obtained


class _Phases:
    """Shows a bar for each phase of the builder, one after the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open = ExitStack()
        self._phase, self._done = "", 0
        self._bar: ProgressTask | None = None

    def __enter__(self) -> _Phases:
        self.tell("building the engine", 0, 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def tell(self, phase: str, done: int, of: int) -> None:
        """Takes note of how many steps of a phase are done."""
        if phase != self._phase:
            self._open.close()
            self._bar = self._open.enter_context(self._progress.task(phase, of if of > 0 else None))
            self._phase, self._done = phase, 0
        if self._bar is not None and done > self._done:
            self._bar.advance(done - self._done)
            self._done = done
