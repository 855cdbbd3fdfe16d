"""The target's own clock: builds networks as they will ship, and times them on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.base import Engine
from edgekit.bench.interleave import timed
from edgekit.bench.statistics import median_ratio_interval
from edgekit.calibration import load_recipe
from edgekit.compiler.gates import call_of
from edgekit.compiler.images import Images
from edgekit.compiler.inputs import Job
from edgekit.compiler.placement import place
from edgekit.compiler.shaping.records import StageLatency
from edgekit.compiler.shaping.stages import PruneStage, Stage
from edgekit.config import from_dict, to_dict
from edgekit.errors import ConfigError, InternalError, UserError
from edgekit.export import export_portable
from edgekit.files import atomic_write, user_cache_folder
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPixels, FoldPreprocessing
from edgekit.passes.prune.timing import LayerTimes, Sample
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import SilentProgress
from edgekit.runtime.machine import describe_machine
from edgekit.runtime.session import Session

__all__ = ["EngineClock", "clock_for"]

# Ranges decide nothing about the time: a few images are enough for an engine that is only timed.
_IMAGES = 8
# A choice hangs on a few percent.
_BLOCKS = 40
# Of each family of layers; the newest stay.
_KEPT = 200


def clock_for(
    jobs: Sequence[Job],
    stages: Sequence[Stage],
    program: Program,
    calibration: Images | None,
    *,
    batch: int,
    threads: int | None,
    seed: int,
    timing: bool,
) -> EngineClock | None:
    """Returns the clock of the target that a pruning names, or of the first target that can be timed here.

    Args:
        jobs: The targets.
        stages: What is asked for; nothing is timed where nothing is pruned.
        program: The given network.
        calibration: Images for int8.
        batch: Images of one call.
        threads: Of the engines.
        seed: Of inputs and of the order of timing.
        timing: Whether anything is timed that is not asked for by name.

    Returns:
        None where no target can be timed here, and none needs to be.

    Raises:
        ConfigError: A latency is asked for, and the target is not compiled for, or cannot be timed here.
    """
    prunings = [stage for stage in stages if isinstance(stage, PruneStage)]
    needed = any(stage.latency is not None for stage in prunings)
    if not prunings or not (timing or needed):
        return None
    names = {stage.on for stage in prunings if stage.on is not None}
    if len(names) > 1:
        raise ConfigError(f"prune: latency on several targets ({', '.join(sorted(names))})", hint="name one of them")
    wanted = next(iter(names), None)
    chosen = [job for job in jobs if wanted in (None, job.target.name, *job.target.aliases)]
    if not chosen:
        compiled = ", ".join(job.target.name for job in jobs)
        raise ConfigError(f"prune: latency on '{wanted}': compiled for is only {compiled}", hint="name one of these")
    reasons = []
    for job in chosen:
        reason = _why_not(job)
        if reason is None:
            return EngineClock(job, program, calibration, batch=batch, threads=threads, seed=seed)
        reasons.append(f"{job.target.name}: {reason}")
    if needed:
        raise ConfigError(
            f"prune: latency cannot be measured here: {'; '.join(reasons)}",
            hint="compile on the target itself, or ask for a share of the multiply-accumulates (--prune 0.5)",
        )
    return None


def _why_not(job: Job) -> str | None:
    placement = place(job.target, job.backend)
    if not placement.timed:
        return placement.reason
    return None if job.backend.tells_times else f"{job.backend.name} does not tell the time of each layer"


@dataclass(frozen=True, kw_only=True)
class _Family:
    name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class _Table:
    families: tuple[_Family, ...]


class EngineClock:
    """Times programs against the given network, each as an engine of the precision that comes first on the target.

    Args:
        job: The target.
        program: The given network.
        calibration: Images for int8; None times in float.
        batch: Images of one call.
        threads: Of the engines.
        seed: Of inputs and of the order of timing.
    """

    def __init__(
        self,
        job: Job,
        program: Program,
        calibration: Images | None,
        *,
        batch: int,
        threads: int | None,
        seed: int,
    ) -> None:
        self._job, self._given, self._calibration = job, program, calibration
        self._batch, self._threads, self._seed = batch, threads, seed
        self.precision = "int8" if calibration is not None and "int8" in job.precisions else _float(job)
        self._reference: Engine | None = None
        self._table = _table_path(job, self.precision, batch, threads)

    @property
    def target(self) -> str:
        """The target's name."""
        return self._job.target.name

    def compare(self, program: Program) -> StageLatency:
        """Times a program and the given network side by side."""
        if self._reference is None:
            self._reference = self._engine(self._given)
        engines = {"before": self._reference, "after": self._engine(program)}
        with ExitStack() as stack:
            calls = {
                name: call_of(stack.enter_context(self._open(engine)), self._feeds(engine))
                for name, engine in engines.items()
            }
            samples = timed(calls, label="timing", seed=self._seed, progress=SilentProgress(), blocks=_BLOCKS)
        return StageLatency(
            target=self.target,
            precision=self.precision,
            batch=self._batch,
            before_ms=float(np.median(samples["before"])) / 1e6,
            after_ms=float(np.median(samples["after"])) / 1e6,
            ratio=median_ratio_interval(samples["after"], samples["before"]),
        )

    def ratio(self, program: Program) -> float:
        """Returns the time of a program over the given network's."""
        return self.compare(program).ratio.estimate

    def layers(self, program: Program) -> LayerTimes:
        """Returns where the time of a program goes."""
        engine = self._engine(program)
        times = self._job.backend.times(engine, self._feeds(engine), threads=self._threads)
        return LayerTimes(layers=times.layers, rest=max(0.0, times.total - sum(times.layers.values())))

    def known(self, family: str) -> Sequence[Sample]:
        """Returns what was measured of a family of layers before, on this machine with these libraries."""
        return self._read().get(family, ())

    def learned(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        """Adds to what is known; what cannot be written is measured again the next time."""
        known = self._read()
        for name, new in samples.items():
            known[name] = (*known.get(name, ()), *new)[-_KEPT:]
        table = _Table(families=tuple(_Family(name=name, samples=items) for name, items in sorted(known.items())))
        with contextlib.suppress(OSError, UserError):
            self._table.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._table) as stream:
                stream.write(json.dumps(to_dict(table)).encode())

    def _read(self) -> dict[str, tuple[Sample, ...]]:
        try:
            table = from_dict(_Table, json.loads(self._table.read_bytes()), where=str(self._table))
        except (OSError, ValueError, UserError):
            return {}  # not there, or of another release: it can be made again
        return {item.name: item.samples for item in table.families}

    def _engine(self, program: Program) -> Engine:
        target, silent = self._job.target, PassContext(progress=SilentProgress())
        passes: list[Pass] = [FoldBatchNorm()]
        if program.task is not None:
            passes.append(FoldPreprocessing())
        if self.precision == "int8":
            passes += [FoldPixels(rules=target.quantize), self._quantize(program)]
        graph = export_portable(
            run_passes(program, passes, silent),
            portable=target.portable,
            precision=self.precision,
            dynamic_batch=self._batch > 1,
        )
        return self._job.backend.build(graph, target)

    def _quantize(self, program: Program) -> Quantize:
        images = self._calibration
        if images is None:
            raise InternalError("int8 was to be timed without images")
        size = _IMAGES if program.dynamic_batch else 1

        def few() -> Any:
            seen = 0
            for batch in images.batches(size):
                yield batch
                seen += len(batch[0])
                if seen >= _IMAGES:
                    return

        count = min(_IMAGES, len(images))
        data = CalibrationData(source=few, count=count, name_of=images.name_of)
        return Quantize(rules=self._job.target.quantize, recipe=load_recipe("fast"), data=data)

    def _open(self, engine: Engine) -> Session:
        return self._job.backend.open(engine, threads=self._threads)

    def _feeds(self, engine: Engine) -> dict[str, Any]:
        generator = np.random.default_rng(self._seed)
        feeds = {}
        for spec in engine.inputs:
            shape = [self._batch if size is None else size for size in spec.shape]
            if spec.dtype == "float32":
                feeds[spec.name] = generator.standard_normal(shape).astype(np.float32)
            else:
                feeds[spec.name] = generator.integers(0, 256, shape).astype(spec.dtype)
        return feeds


def _float(job: Job) -> str:
    return next((item for item in job.precisions if item != "int8"), job.precisions[0])


def _table_path(job: Job, precision: str, batch: int, threads: int | None) -> Path:
    """The file of what was measured under these conditions: another machine, library or setting has another file."""
    facts = {
        "machine": describe_machine(),
        "target": to_dict(job.target),
        "precision": precision,
        "batch": batch,
        "threads": threads,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return user_cache_folder() / "layer-times" / f"{job.target.name}-{digest}.json"
