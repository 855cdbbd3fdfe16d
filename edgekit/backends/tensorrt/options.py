"""What a target may say about TensorRT in its ``engine`` table, and the build options that the bundle carries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.backends.batch import parse_batch
from edgekit.config import from_dict
from edgekit.errors import ConfigError
from edgekit.targets import Target

__all__ = ["EngineTable", "build_options", "engine_table"]


@dataclass(frozen=True, kw_only=True)
class EngineTable:
    """The ``engine`` table of a TensorRT target.

    Attributes:
        version: Oldest release (``major.minor``) that devices of this target have: operators and types newer than it
            are refused. For TensorRT-RTX, the TensorRT release whose operators it certainly has.
        workspace_mib: Scratch memory that the builder may plan for; None leaves the library's default, the whole
            device memory.
        builder_optimization_level: How long the builder searches, 0 to 5; None leaves the library's default.
        profiling_verbosity: How much the built engine tells about its layers.
        batch: Smallest (always 1), best and largest batch of the optimization profile; used for graphs with a dynamic
            batch. ``--batch`` overrides it.
        compute_capabilities: GPU generations that an engine of TensorRT-RTX is for, such as ``8.6``; none leaves the
            library's default, Ampere and later in one engine. TensorRT builds for the GPU that it runs on.
    """

    version: str = "10.3"
    workspace_mib: int | None = None
    builder_optimization_level: int | None = None
    profiling_verbosity: Literal["layer_names_only", "detailed", "none"] = "detailed"
    batch: tuple[int, int, int] = (1, 1, 8)
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if re.fullmatch(r"\d+\.\d+", self.version) is None:
            raise ConfigError(f"version: expected major.minor, such as '10.3', got '{self.version}'")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(f"workspace_mib: expected at least 1, got {self.workspace_mib}")
        if self.builder_optimization_level is not None and not 0 <= self.builder_optimization_level <= 5:
            raise ConfigError(f"builder_optimization_level: expected 0 to 5, got {self.builder_optimization_level}")
        parse_batch(self.batch)
        for item in self.compute_capabilities:
            if re.fullmatch(r"\d+\.\d", item) is None:
                raise ConfigError(f"compute_capabilities: expected major.minor, such as '8.6', got '{item}'")

    @property
    def release(self) -> tuple[int, int]:
        """The version as numbers, for comparison."""
        major, minor = self.version.split(".")
        return int(major), int(minor)


def engine_table(target: Target) -> EngineTable:
    """Reads the target's ``engine`` table.

    Raises:
        ConfigError: Unknown key or illegal value; names the target and the nearest key.
    """
    return from_dict(EngineTable, target.engine, where=f"target '{target.name}': engine")


def build_options(target: Target, precision: str) -> dict[str, Any]:
    """Returns what the device needs to build an engine as this target asks.

    All precision is in the graph (a strongly typed network), so ``precision`` is only recorded.

    Raises:
        ConfigError: A wrong ``engine`` table.
    """
    table = engine_table(target)
    if table.compute_capabilities and target.backend != "tensorrt_rtx":
        raise ConfigError(
            f"target '{target.name}': engine: compute_capabilities is for TensorRT-RTX alone",
            hint="leave it out: TensorRT builds for the GPU that it runs on",
        )
    return {
        "precision": precision,
        "strongly_typed": True,
        "version": table.version,
        "workspace_mib": table.workspace_mib,
        "builder_optimization_level": table.builder_optimization_level,
        "profiling_verbosity": table.profiling_verbosity,
        "batch": list(table.batch),
        "compute_capabilities": list(table.compute_capabilities),
    }
