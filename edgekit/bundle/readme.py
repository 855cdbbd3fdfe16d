"""The README.txt of an extracted bundle: what the model takes, what it gives, how to feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.bundle.manifest import Entry, Manifest
from edgekit.config import to_dict
from edgekit.tensorspec import TensorSpec

__all__ = ["README_NAME", "EntryFiles", "entry_table", "readme_text"]

README_NAME = "README.txt"

_OPENVINO = (
    "OpenVINO (C++ or Python): core.compile_model('model.xml', device, properties); both are in entry.json, 'options'.",
    "Keep its INFERENCE_PRECISION_HINT, or the engine may run in another precision than the one that was checked.",
    "Triton: backend 'openvino', model.xml and model.bin in the version folder.",
)
_PLAN = (
    "The plan runs only with the TensorRT version and GPU that built it; elsewhere, build model.onnx anew.",
    "Load a plan only from a source that you trust: deserializing it can run code.",
)
_RTX_PLAN = (
    "TensorRT for RTX: the plan runs with the very release that built it (entry.json, 'options', 'builder') and no",
    "other, on GPUs of the compute capabilities in 'options'; none there: 8.0 (Ampere) and later.",
    "Load a plan only from a source that you trust: deserializing it can run code.",
)
_TENSORRT = (
    "edgekit build makes the engine on the device, checks it and keeps the fastest. With TensorRT's own tools:",
    "build model.onnx there as a strongly typed network",
    "(trtexec --onnx=model.onnx --stronglyTyped --saveEngine=model.plan);",
    "every precision is in the graph: give no calibrator and no precision flags.",
    "Triton: platform 'tensorrt_plan', model.plan in the version folder.",
    "DeepStream: nvinfer's own preprocessing makes normalised planar floats, which this input is not. Prepare raw",
    "NHWC tensors with nvdspreprocess (UINT8, pixel-normalization-factor 1, no offsets), input-tensor-meta=1.",
)


@dataclass(frozen=True, kw_only=True)
class EntryFiles:
    """One entry with the names of its extracted files.

    Attributes:
        entry: The manifest's entry.
        folder: Its folder, relative to the extracted one.
        files: File name (relative to ``folder``) to name in the bundle.
        engine: The engine's files: role to file name.
        golden_inputs, golden_outputs: Tensor name to file name.
    """

    entry: Entry
    folder: str
    files: Mapping[str, str]
    engine: Mapping[str, str]
    golden_inputs: Mapping[str, str]
    golden_outputs: Mapping[str, str]


def entry_table(plan: EntryFiles) -> dict[str, Any]:
    """Returns the content of ``entry.json``: the manifest's entry, with the names of the extracted files."""
    table: dict[str, Any] = to_dict(plan.entry)
    names = {stored: name for name, stored in reversed(list(plan.files.items()))}
    table["graph"] = names[plan.entry.graph]
    if plan.entry.engine is not None:
        # Written plain, however the bundle stores them.
        table["engine"] = {"kind": plan.entry.engine.kind, "files": dict(plan.engine)}
    table["golden"]["inputs"] = dict(plan.golden_inputs)
    table["golden"]["outputs"] = dict(plan.golden_outputs)
    return table


def readme_text(manifest: Manifest, plans: Sequence[EntryFiles], *, has_labels: bool) -> str:
    """Returns the text of ``README.txt``.

    Args:
        manifest: The bundle's manifest.
        plans: The extracted entries.
        has_labels: Whether ``labels.txt`` is written.
    """
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.producer.items()))
    lines = [
        f"{_line(manifest.name)}: extracted from an edgekit bundle",
        "",
        f"content digest  {manifest.content_digest}",
        f"made with       {_line(versions)}",
        "",
        f"{README_NAME}      this file",
        "manifest.json   the bundle's manifest, byte for byte (docs/bundle.md describes it)",
        "report.json     measurements and history of the compilation",
    ]
    if manifest.task is not None:
        lines.append("task.json       the task: labels, thresholds, the input that the model was trained with")
    if has_labels:
        lines.append(
            "labels.txt      one label a line, in class order from 0 (a line break inside a label became a space)"
        )
    lines += ["", *_feeding(manifest.task)]
    for plan in plans:
        lines += ["", *_entry(plan)]
    return "\n".join(lines) + "\n"


def _feeding(task: Mapping[str, Any] | None) -> list[str]:
    image = None if task is None else task.get("input")
    if not isinstance(image, Mapping):
        return [
            "HOW TO FEED IT",
            "This model has no task: give each input as it stands below; its author says what the outputs mean.",
        ]
    lines = [
        "HOW TO FEED IT",
        "Resize the frame as below, and give its raw pixels: rows of interleaved pixels (N x H x W x C).",
        "Do NOT divide, subtract a mean, swap colours or transpose: that arithmetic is inside the graph.",
        f"  pixels         {image.get('dtype', 'uint8')}, {_colours(image)}",
        f"  size           {_size(image.get('size'))}",
        f"  resize         {_resize(image)}",
        f"  interpolation  {image.get('interpolation', 'bilinear')}, {_antialias(image)}",
        "What the graph then computes per channel (for information): "
        f"(pixel * {image.get('scale', 1.0)} - {image.get('mean', 0.0)}) / {image.get('std', 1.0)}, "
        f"channels in {image.get('color', 'rgb')} order.",
    ]
    return [_line(line) for line in lines]


def _colours(image: Mapping[str, Any]) -> str:
    if image.get("channels", 3) == 1:
        return "1 channel: gray"
    return "3 channels in the order B, G, R (OpenCV's), whatever order the model was trained with"


def _size(size: Any) -> str:
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return f"{size[0]} rows (height) x {size[1]} columns (width)"
    return str(size)


def _resize(image: Mapping[str, Any]) -> str:
    texts = {
        "stretch": "stretch: the whole frame to the size, its aspect ratio is not kept",
        "crop": f"crop: the shorter side to the size / {image.get('crop_fraction', 0.875)}, then the centre",
        "letterbox": f"letterbox: the whole frame, aspect ratio kept, borders of {image.get('pad_value', 114.0)}",
    }
    kind = str(image.get("resize", "stretch"))
    return texts.get(kind, kind)


def _antialias(image: Mapping[str, Any]) -> str:
    if image.get("antialias", False):
        return "with antialiasing (the filter widens when shrinking, as in Pillow)"
    return "without antialiasing (as in OpenCV)"


def _entry(plan: EntryFiles) -> list[str]:
    entry = plan.entry
    lines = [
        f"{plan.folder}/",
        f"  target {_line(entry.target)}, precision {_line(entry.precision)}, backend {_line(entry.backend)}",
        f"  latency: {entry.latency}; accuracy: {entry.accuracy}",
        "  inputs",
        *(_tensor(spec) for spec in entry.inputs),
        "  outputs",
        *(_tensor(spec) for spec in entry.outputs),
        "  files",
        *(f"    {name}" for name in plan.files),
        "    entry.json (interface, options and golden files of this entry)",
        "  Self-test: feed golden/inputs and compare with golden/outputs; per output, over all samples,",
        f"  ||engine - reference|| / ||reference|| is at most {entry.golden.rel_l2:g}.",
    ]
    if entry.requires.reason:
        lines.append(f"  Machine: {_line(entry.requires.reason)}")
    return lines + [f"  {line}" for line in _use(entry)]


def _tensor(spec: TensorSpec) -> str:
    shape = " x ".join("N" if size is None else str(size) for size in spec.shape)
    return f"    {_line(spec.name)}: {_line(spec.dtype)}, {shape or 'scalar'}"


def _use(entry: Entry) -> list[str]:
    kind = "" if entry.engine is None else entry.engine.kind
    lines: list[str] = []
    if kind == "openvino-ir":
        lines += _OPENVINO
    elif kind == "tensorrt-rtx-plan":
        lines += _RTX_PLAN
    elif kind == "tensorrt-plan":
        lines += [*_PLAN, *_TENSORRT]
    elif entry.backend == "tensorrt":
        lines += _TENSORRT
    return [*lines, "model.onnx is self-contained; ONNX Runtime runs it as it is."]


def _line(text: str) -> str:
    """Returns the text on one line and without control characters: names come from whoever made the bundle."""
    return "".join(character if character.isprintable() else " " for character in text)
