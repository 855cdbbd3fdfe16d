"""What a compilation says about itself: every candidate with what was measured, what ships, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.compiler.records import Accuracy, DataReport, TargetReport
from edgekit.compiler.shaping import StageReport
from edgekit.compiler.text import data_text, stages_text, target_text
from edgekit.config import to_dict
from edgekit.program import Record

__all__ = ["CompileReport"]

SCHEMA = "edgekit.compile/1"


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """The whole report; ``to_dict`` is what ``--json`` prints, ``to_stored`` what the bundle keeps as ``report.json``.

    Attributes:
        name: Model name.
        output: The bundle.
        content_digest: Its digest.
        bundle_bytes: Its size.
        float_accuracy: The float program's metric, the reference of every drop.
        stages: What happened to the network before, each stage with its numbers.
        targets: In the order asked for.
        data: Which images were used.
        history: What every stage did, by target scheme.
        diagnostics: What calibration knows of each layer and tensor, by int8 scheme; the keys are those of
            ``docs/json.md``.
        warnings: What a user should know, each with what to do.
        machine: Where it was measured.
    """

    name: str
    output: Path
    content_digest: str
    bundle_bytes: int
    float_accuracy: Accuracy | None
    stages: tuple[StageReport, ...]
    targets: tuple[TargetReport, ...]
    data: DataReport
    history: Mapping[str, tuple[Record, ...]]
    diagnostics: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...]
    machine: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, described in ``docs/json.md``."""
        document: dict[str, Any] = {"schema": SCHEMA, **to_dict(self), "output": str(self.output)}
        for target, plain in zip(self.targets, document["targets"], strict=True):
            for candidate, item in zip(target.candidates, plain["candidates"], strict=True):
                item["layer_counts"] = candidate.layer_counts()
        return document

    def to_stored(self) -> dict[str, Any]:
        """The document without what describes the bundle from outside: its path, size and digest."""
        outside = ("output", "content_digest", "bundle_bytes")
        return {key: value for key, value in self.to_dict().items() if key not in outside}

    def to_text(self) -> str:
        """The report for a person: what ships per target and why, the candidates, the data, the warnings."""
        blocks = [stages_text(self.stages, self.float_accuracy)] if self.stages else []
        blocks += [target_text(item, self.float_accuracy) for item in self.targets]
        rows = [("bundle", f"{self.output} ({self.bundle_bytes / 1024:.0f} KiB)"), ("digest", self.content_digest)]
        blocks.append(data_text(self.data, rows))
        blocks += ["\n".join(f"warning: {line}" for line in self.warnings)] if self.warnings else []
        return "\n\n".join(blocks)
