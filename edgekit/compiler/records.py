"""The parts of a compile report: candidates with what was measured, targets with what ships and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.bench.statistics import Interval
from edgekit.tensorspec import LayerRecord

__all__ = ["Accuracy", "CandidateReport", "DataReport", "Latency", "LayerCost", "MixedStep", "TargetReport"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The task's metric on one candidate.

    Attributes:
        metric: Its name, such as ``top1``.
        value: In 0..1.
        samples: Images evaluated.
        drop: Float minus this candidate, in points, with the paired 95 % interval; None for the float reference.
        kind: ``measured`` on the engine, or ``simulated`` on the program that the engine implements.
        per_class: Class name to value.
    """

    metric: str
    value: float
    samples: int
    drop: Interval | None
    kind: Literal["measured", "simulated"]
    per_class: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Engine time of one image on this machine, interleaved with the other candidates of the target.

    Attributes:
        p50_ms: Median.
        p90_ms: 90th percentile.
        samples: Timed calls.
        ratio_to_float: Over the fastest float candidate, with its 95 % interval; None for that candidate itself.
    """

    p50_ms: float
    p90_ms: float
    samples: int
    ratio_to_float: Interval | None


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer costs, quantized alone in a network that is otherwise float.

    Attributes:
        layer: Dotted name of the module that owns its weight.
        node: Its name in the graph.
        drop: Float's metric minus this network's on calibration images, in points, with the paired 95 % interval; None
            without labels.
        sqnr_db: Signal-to-noise ratio at the network's outputs; None where nothing changed.
    """

    layer: str
    node: str
    drop: Interval | None
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class MixedStep:
    """One step of returning layers to float, the costliest first.

    Attributes:
        layers: All that are float by this step.
        drop: The metric's, in points, on the images of the accuracy gate; None where it could not be measured.
        p50_ms: Median time of the step's engine, interleaved with the int8 engine; None where it is not timed here.
        time_to_int8: Time over the int8 engine's: what the returns cost. None where it is not timed here.
        passed: Whether the engine passed its gates.
    """

    layers: tuple[str, ...]
    drop: Interval | None
    p50_ms: float | None
    time_to_int8: Interval | None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class CandidateReport:
    """One candidate.

    Attributes:
        precision: ``int8``, ``mixed`` (int8 with the costliest layers in float), ``fp16``, ``bf16`` or ``fp32``.
        status: ``shipped``; ``passed`` every gate but something better ships; ``rejected`` by a gate; ``failed`` to
            build.
        reason: Why.
        gate: Which gate rejected it: ``golden``, ``accuracy`` or ``speed``; empty where none did.
        graph_bytes, engine_bytes: Sizes; no engine where the device builds it.
        stored_bytes: What the engine takes in the bundle: less than ``engine_bytes`` where it is stored compressed.
        golden: Output name to the engine's relative L2 error against the program on the golden inputs; None where it is
            not finite.
        golden_limit: Its limit; None where no engine was opened.
        float_distance: Largest relative L2 distance of an output of the program from float's on the golden inputs: what
            quantization itself changes. None where it is not finite.
        accuracy, latency: None where they could not be had; ``reason`` or the warnings say why.
        layers: Compute layers by executed precision; empty where no engine ran here.
        findings: What ran otherwise than planned.
        rehearsal: Outcome of building the graph with a related builder; None where there was none.
        ranking: For ``mixed``: what each layer costs, the costliest first.
        steps: For ``mixed``: how layers were returned to float until the drop was small enough.
    """

    precision: str
    status: Literal["shipped", "passed", "rejected", "failed"]
    reason: str
    gate: Literal["", "golden", "accuracy", "speed"] = ""
    graph_bytes: int = 0
    engine_bytes: int = 0
    stored_bytes: int = 0
    golden: Mapping[str, float | None] = field(default_factory=dict)
    golden_limit: float | None = None
    float_distance: float | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    layers: tuple[LayerRecord, ...] = ()
    findings: tuple[str, ...] = ()
    rehearsal: Mapping[str, Any] | None = None
    ranking: tuple[LayerCost, ...] = ()
    steps: tuple[MixedStep, ...] = ()

    def layer_counts(self) -> dict[str, int]:
        """Compute layers by executed precision."""
        return dict(sorted(Counter(layer.precision for layer in self.layers if layer.compute).items()))


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """One target of a compilation.

    Attributes:
        target, title: Name, and what people call it.
        shipped: The precisions in the bundle, best first: one where an engine was chosen, several where the device
            chooses.
        why: Why these.
        latency: ``measured`` on this machine, or ``unverified``.
        verified_on: Where engines were checked: ``this device``, ``CPU in its place``, or ``not here``.
        candidates: All of them, in the target's order.
    """

    target: str
    title: str
    shipped: tuple[str, ...]
    why: str
    latency: Literal["measured", "unverified"]
    verified_on: Literal["this device", "CPU in its place", "not here"]
    candidates: tuple[CandidateReport, ...]

    def candidate(self, precision: str) -> CandidateReport:
        """Returns the candidate of a precision."""
        return next(item for item in self.candidates if item.precision == precision)


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Which images were used for what.

    Attributes:
        calibration: Images that ranges were found on.
        evaluation: Images of the accuracy gate.
        evaluation_source: Says where they are from, and what that means for the number.
        training: Images that stages trained on.
        skipped: Images of both that could not be read, each with the reason; not counted above.
        notes: What was decided while the images were chosen.
    """

    calibration: int = 0
    evaluation: int = 0
    evaluation_source: str = "none"
    training: int = 0
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
