"""What a diagnosis consists of. A number is None, a text is empty, where the report does not have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

__all__ = [
    "Candidate",
    "Correction",
    "Diagnosis",
    "Finding",
    "Headline",
    "Histogram",
    "Layer",
    "Output",
    "Range",
    "TargetSummary",
    "Tensor",
]

Range = tuple[float, float]
"""Smallest and largest value, both finite, in this order."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of the model: signal to quantization noise of the whole int8 program, in dB."""

    name: str
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution or linear.

    Attributes:
        index: Its place in the graph, from 0.
        name: The module's name, or the node's where there is none.
        node: Name of the graph's node.
        kind: Such as ``conv2d``.
        precision: ``int8`` or ``float``.
        own_sqnr_db: Output SQNR when this layer alone is quantized, on float inputs.
        accumulated_sqnr_db: SQNR of its output when all layers are quantized.
        reason: Why it is float; empty for int8.
        rank: 1 is the most guilty.
    """

    index: int
    name: str
    node: str
    kind: str
    precision: str
    own_sqnr_db: float | None
    accumulated_sqnr_db: float | None
    reason: str
    rank: int | None

    @property
    def is_float(self) -> bool:
        """Whether it was left in float."""
        return self.precision == "float"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often values fall between two neighbouring edges.

    Attributes:
        edges: One more than ``counts``, ascending, finite; all equal where the tensor is constant.
        counts: Not negative.
    """

    edges: tuple[float, ...]
    counts: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One quantized activation.

    Attributes:
        index: Its place in the report, from 0.
        name: Name of the graph's node that makes it.
        role: ``conv`` or ``linear``: which integers stand for it.
        consumers: Layers that read it.
        producer: The layer that makes it; empty where that is no layer.
        observed: Smallest and largest value seen.
        range: What the integers stand for.
        method: How the range was chosen.
        saturated: Share of the values outside ``range``, 0..1.
        utilisation: How much of ``range`` is used, 0..1.
        halves: The range from one half of the images, and from the other.
        unsettled: Relative change of the range between the two halves; 0 is none.
        histogram: Of the observed values.
    """

    index: int
    name: str
    role: str
    consumers: tuple[str, ...]
    producer: str
    observed: Range | None
    range: Range | None
    method: str
    saturated: float | None
    utilisation: float | None
    halves: tuple[Range, Range] | None
    unsettled: float | None
    histogram: Histogram | None


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What one correction gained on one layer, in dB, on data that it was not fitted on, and whether it was kept."""

    stage: str
    layer: str
    gain_db: float | None
    kept: bool | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that makes the result worse or the numbers doubtful: what, where, why, and what would help."""

    what: str
    where: str
    why: str
    help: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One quantized program.

    Attributes:
        scheme: Key of the report, such as ``int8 1: x86-cpu, x86-cpu-legacy``.
        images: Held-out images that the SQNRs rest on.
        outputs, layers, tensors, corrections, findings: In the report's order; layers are in the graph's.
    """

    scheme: str
    images: int | None
    outputs: tuple[Output, ...]
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    corrections: tuple[Correction, ...]
    findings: tuple[Finding, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that this program is for, read from the scheme's name."""
        return tuple(self.scheme.rpartition(": ")[2].split(", "))

    @property
    def int8_layers(self) -> int:
        """How many layers are in int8."""
        return sum(1 for layer in self.layers if layer.precision == "int8")

    @cached_property
    def worst_first(self) -> tuple[Layer, ...]:
        """The layers that are not float, by rank; those without a rank come last, the lowest own SQNR first."""
        quantized = (layer for layer in self.layers if not layer.is_float)
        return tuple(sorted(quantized, key=_guilt))

    @cached_property
    def left_float(self) -> Mapping[str, tuple[Layer, ...]]:
        """Reason to the layers left float for it, the most frequent reason first."""
        found: dict[str, list[Layer]] = {}
        for layer in self.layers:
            if layer.is_float:
                found.setdefault(layer.reason, []).append(layer)
        ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[1][0].index))
        return {reason: tuple(layers) for reason, layers in ordered}

    @cached_property
    def _inputs(self) -> Mapping[str, tuple[Tensor, ...]]:
        found: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            for name in dict.fromkeys(tensor.consumers):
                found.setdefault(name, []).append(tensor)
        return {name: tuple(tensors) for name, tensors in found.items()}

    @cached_property
    def _corrections(self) -> Mapping[str, tuple[Correction, ...]]:
        found: dict[str, list[Correction]] = {}
        for correction in self.corrections:
            found.setdefault(correction.layer, []).append(correction)
        return {name: tuple(corrections) for name, corrections in found.items()}

    def inputs_of(self, layer: Layer) -> tuple[Tensor, ...]:
        """Returns the quantized tensors that a layer reads."""
        return self._inputs.get(layer.name, ()) if layer.name else ()

    def corrections_of(self, layer: Layer) -> tuple[Correction, ...]:
        """Returns what each correction gained on a layer."""
        return self._corrections.get(layer.name, ()) if layer.name else ()

    @cached_property
    def unclaimed_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that no int8 layer of the list reads, such as those that only an addition reads."""
        names = {layer.name for layer in self.layers if not layer.is_float}
        return tuple(tensor for tensor in self.tensors if not names & set(tensor.consumers))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One engine that was tried, with what was measured of it.

    Attributes:
        precision, status, reason: As in the compile report.
        accuracy: In 0..1.
        drop: Float minus this, in points: estimate, low, high.
        simulated: Whether the accuracy is that of the program and not of an engine on its device.
        p50_ms: Median time of one image.
        ratio: Its time over the fastest float candidate's: estimate, low, high.
        engine_bytes: Size of the engine; None where the device builds it.
        counts: Compute layers by executed precision.
        findings: What ran otherwise than planned.
    """

    precision: str
    status: str
    reason: str
    accuracy: float | None
    drop: tuple[float, float, float] | None
    simulated: bool
    p50_ms: float | None
    ratio: tuple[float, float, float] | None
    engine_bytes: int | None
    counts: Mapping[str, int]
    findings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TargetSummary:
    """One target of the compilation: what ships, why, and all candidates."""

    target: str
    title: str
    shipped: tuple[str, ...]
    why: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What stands above the diagnoses.

    Attributes:
        name: The model's name.
        metric: Name of the task's metric; empty where there is none.
        float_accuracy: That of the float program, 0..1.
        calibration_images, evaluation_images: How many were used.
        targets: In the report's order.
    """

    name: str
    metric: str
    float_accuracy: float | None
    calibration_images: int | None
    evaluation_images: int | None
    targets: tuple[TargetSummary, ...]


def _guilt(layer: Layer) -> tuple[bool, int, bool, float, int]:
    rank, own = layer.rank, layer.own_sqnr_db
    return (rank is None, 0 if rank is None else rank, own is None, 0.0 if own is None else own, layer.index)
