"""Typed loader of ``targets/*.toml``: what a hardware target is, as data.

Code branches on what a target *says*, never on its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit.config import nearest
from edgekit.datafiles import is_path, read_all, read_one
from edgekit.errors import ConfigError

__all__ = [
    "Figure",
    "Peak",
    "Portable",
    "Precision",
    "QuantizeRules",
    "Requires",
    "Target",
    "list_targets",
    "load_target",
]

Precision = Literal["int8", "fp16", "bf16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number about the hardware, with where it is written."""

    value: float
    unit: str
    source: str

    def __post_init__(self) -> None:
        _check_sourced("value", self.value, self.source)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Peak arithmetic throughput, dense (no structured sparsity), in tera-operations per second (a MAC is two)."""

    precision: Precision
    tops: float
    source: str

    def __post_init__(self) -> None:
        _check_sourced("tops", self.tops, self.source)


@dataclass(frozen=True, kw_only=True)
class Requires:
    """What a machine must have to run this target's engines correctly.

    Attributes:
        arch: Accepted ``platform.machine()`` values; empty accepts all.
        cpu_flags_any: At least one of these CPU flags (names of /proc/cpuinfo) must be there; empty asks for none.
        device: The backend's device name that must exist (``CPU``, ``GPU``, ``NPU``); empty asks for none.
        on_mismatch: ``refuse`` (results would be wrong) or ``warn`` (slower, but right).
        reason: Why, in one sentence; shown when the check fails.
    """

    arch: tuple[str, ...] = ()
    cpu_flags_any: tuple[str, ...] = ()
    device: str = ""
    on_mismatch: Literal["refuse", "warn"] = "refuse"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantizeRules:
    """Where int8 goes on this target, and in which form. See ``docs/quantization.md`` for the rules.

    Attributes:
        activations: ``uint8-asymmetric`` (OpenVINO) or ``int8-symmetric`` (TensorRT: zero-point 0).
        weight_bits: 8 gives weights in [-127, 127]; 7 gives [-63, 63], exact where 16-bit accumulation saturates.
        depthwise: Depthwise convolutions in int8 or left float.
        residual_add: Both inputs of a residual add in int8, or left float.
        global_pool: The input of a global average pool in int8, or left float.
        squeeze_excite: The whole squeeze-excite branch in int8, or none of it; ``by-activation``: none of it where the
            feature map comes out of a SiLU, all of it elsewhere.
        attention_matmul: The two matrix products inside attention in int8, or left float; ``scores``: queries times
            keys alone.
        raw_pixels: ``fold``: the first convolution reads uint8 pixels, mean and std in its weight and bias; ``float``:
            it reads normalised pixels, which are quantized as any tensor.
    """

    activations: Literal["uint8-asymmetric", "int8-symmetric"]
    weight_bits: Literal[7, 8] = 8
    depthwise: Literal["int8", "float"] = "int8"
    residual_add: Literal["int8", "float"] = "int8"
    global_pool: Literal["int8", "float"] = "int8"
    squeeze_excite: Literal["int8", "by-activation", "float"] = "float"
    attention_matmul: Literal["int8", "scores", "float"] = "float"
    raw_pixels: Literal["fold", "float"] = "float"


@dataclass(frozen=True, kw_only=True)
class Portable:
    """The form of the portable ONNX graph for this target.

    Attributes:
        opset: Version of ONNX's default operator set.
        ir_version: Version of ONNX's file format.
        half: How fp16 is asked for: ``graph`` writes float16 types into it (strongly typed engines run what the graph
            says), ``option`` leaves it float32 and tells the engine.
    """

    opset: int = 20
    ir_version: int = 10
    half: Literal["graph", "option"] = "option"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One hardware target.

    Attributes:
        name: Unique; the file's stem.
        title: What a person would call the device.
        backend: Name in the backend table: ``openvino``, ``tensorrt`` or ``tensorrt_rtx``.
        build: ``here`` (compile emits the engine that it chose), ``ahead`` (compile emits an engine for each precision,
            the device chooses) or ``device`` (the bundle carries graphs and options, the device builds and chooses).
        precisions: What pays on this device, best first; the candidates that compile makes.
        modules: Part numbers of the Jetson modules that this target is, as the device tree names them (``p3767-0005``).
        channel_alignment: Multiple to which pruned channel counts are rounded.
        golden_rel_l2: Largest allowed ``||engine - reference|| / ||reference||`` per output on the golden inputs, by
            precision.
        engine: Options for the backend, in the backend's own words (``performance_hint``, ``workspace_mib``...).
    """

    name: str
    title: str
    backend: Literal["openvino", "tensorrt", "tensorrt_rtx"]
    build: Literal["here", "ahead", "device"]
    precisions: tuple[Precision, ...]
    channel_alignment: int
    channel_alignment_source: str
    quantize: QuantizeRules
    golden_rel_l2: dict[str, float]
    aliases: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    requires: Requires = field(default_factory=Requires)
    portable: Portable = field(default_factory=Portable)
    engine: dict[str, Any] = field(default_factory=dict)
    memory: Figure | None = None
    bandwidth: Figure | None = None
    peaks: tuple[Peak, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.precisions or len(set(self.precisions)) != len(self.precisions):
            raise ConfigError(f"precisions: expected one or more different ones, got {list(self.precisions)}")
        if self.channel_alignment < 1:
            raise ConfigError(f"channel_alignment: expected at least 1, got {self.channel_alignment}")
        for precision in self.precisions:
            bound = self.golden_rel_l2.get(precision)
            if bound is None:
                raise ConfigError(f"golden_rel_l2: no bound for {precision}", hint="give one for each of precisions")
            if not 0 < bound < 1:
                raise ConfigError(f"golden_rel_l2.{precision}: expected a number between 0 and 1, got {bound}")
        for key in self.golden_rel_l2:
            if key not in self.precisions:
                raise ConfigError(f"golden_rel_l2.{key}: not one of precisions", hint=nearest(key, self.precisions))


def list_targets(*, extra: Path | None = None) -> tuple[Target, ...]:
    """Returns every known target, by name: those that ship with edgekit, and those of ``EDGEKIT_TARGETS``.

    Args:
        extra: One more folder of targets.

    Raises:
        ConfigError: A file is wrong, or two targets share a name or an alias.
    """
    targets = read_all(Target, "targets", variable="EDGEKIT_TARGETS", extra=extra)
    taken = {target.name: target.name for target in targets}
    for target in targets:
        for alias in target.aliases:
            if alias in taken:
                raise ConfigError(f"target '{target.name}': its alias '{alias}' already means '{taken[alias]}'")
            taken[alias] = target.name
    return targets


def load_target(name: str | Path, *, extra: Path | None = None) -> Target:
    """Returns one target.

    Args:
        name: Its name or alias, or the path of a TOML file.
        extra: One more folder of targets.

    Raises:
        ConfigError: No such target (the hint names the nearest), or a file is wrong.
    """
    if is_path(name):
        return read_one(Target, Path(name))
    targets = list_targets(extra=extra)
    words = {word: target for target in targets for word in (target.name, *target.aliases)}
    if str(name) not in words:
        raise ConfigError(f"unknown target '{name}'", hint=nearest(str(name), words))
    return words[str(name)]


def _check_sourced(what: str, value: float, source: str) -> None:
    if value <= 0:
        raise ConfigError(f"{what}: expected a positive number, got {value}")
    if not source.strip():
        raise ConfigError("source: empty", hint="say which document and page the number is from, or leave it out")
