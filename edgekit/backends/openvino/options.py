"""What a target may say about OpenVINO in its ``engine`` table, and the compile properties that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgekit.backends.batch import parse_batch
from edgekit.config import from_dict, nearest
from edgekit.errors import ConfigError
from edgekit.targets import Target

__all__ = ["EngineTable", "compile_options", "engine_table"]


@dataclass(frozen=True, kw_only=True)
class EngineTable:
    """The ``engine`` table of an OpenVINO target.

    Attributes:
        device: OpenVINO's device name.
        inference_precision: Candidate precision to what its float part runs in. Stated for every candidate: left alone,
            OpenVINO computes fp32 graphs in bf16 on CPUs that have it.
        performance_hint: ``LATENCY`` (one request at a time, all cores on it) or ``THROUGHPUT`` (several streams).
        cache: Whether compiling takes so long on this device that the compiled model is worth keeping on disk.
        batch: Smallest (always 1), best and largest batch of graphs with a dynamic batch; OpenVINO keeps the largest.
            None takes any number. ``--batch`` overrides it.
    """

    device: Literal["CPU", "GPU", "NPU"]
    inference_precision: dict[str, Literal["f32", "f16", "bf16"]]
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY"
    cache: bool = False
    batch: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.batch is None:
            return
        batch, problem = parse_batch(self.batch), self.batch_problem
        if batch.largest > 1 and problem:
            raise ConfigError(
                f"batch: {problem}, got {batch}",
                hint="compile for this target without --batch: its engine takes one image",
            )

    @property
    def batch_problem(self) -> str:
        """Why no engine with a dynamic batch can be made; empty where one can.

        Source: OpenVINO documentation, "Supported Devices", feature "Dynamic shapes": CPU yes, GPU partial, NPU no.
        """
        if self.device == "NPU":
            return "OpenVINO's NPU takes engines of one batch size only"
        return "the target's engine.batch allows one image" if self.batch is not None and self.batch[2] == 1 else ""


def engine_table(target: Target) -> EngineTable:
    """Reads the target's ``engine`` table.

    Raises:
        ConfigError: Unknown or missing key, or a value that OpenVINO does not have; names the target and the nearest
            key.
    """
    return from_dict(EngineTable, target.engine, where=f"target '{target.name}': engine")


def compile_options(target: Target, precision: str) -> dict[str, Any]:
    """Returns ``{"device": ..., "properties": {...}, "cache": ...}`` for opening an engine of this precision.

    Source: OpenVINO documentation, "Precision Control" (``INFERENCE_PRECISION_HINT``) and "High-level Performance
        Hints"
    (``PERFORMANCE_HINT``).

    Raises:
        ConfigError: The target states no inference precision for this candidate, or its ``engine`` table is wrong.
    """
    table = engine_table(target)
    if precision not in table.inference_precision:
        raise ConfigError(
            f"target '{target.name}': engine.inference_precision says nothing about '{precision}'",
            hint=nearest(precision, table.inference_precision),
        )
    return {
        "device": table.device,
        "properties": {
            "INFERENCE_PRECISION_HINT": table.inference_precision[precision],
            "PERFORMANCE_HINT": table.performance_hint,
        },
        "cache": table.cache,
    }
