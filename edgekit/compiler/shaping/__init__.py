"""Shaping: what happens to a network before it is quantized. Each stage is judged, and kept or rolled back.

Here are the words for it, which options and reports share; :mod:`edgekit.compiler.shaping.run` does it.
"""

from edgekit.compiler.shaping.records import StageLatency, StageReport
from edgekit.compiler.shaping.stages import (
    DistillStage,
    PruneStage,
    QatStage,
    Stage,
    in_steps,
    parse_prune,
    read_stages,
)

__all__ = [
    "DistillStage",
    "PruneStage",
    "QatStage",
    "Stage",
    "StageLatency",
    "StageReport",
    "in_steps",
    "parse_prune",
    "read_stages",
]
