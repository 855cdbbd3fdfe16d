"""Tiny real OpenVINO engines, and bundles around them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from edgekit.bundle import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    EngineRecord,
    Entry,
    Golden,
    Manifest,
    array_bytes,
    store_name,
    write_bundle,
)
from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec

Array = npt.NDArray[Any]

LABELS = ("blue", "green", "red")
SIZE = 8
CPU = {"device": "CPU", "properties": {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}}


@dataclass(frozen=True, kw_only=True)
class TinyEngine:
    """An IR with its interface."""

    files: dict[str, bytes] = field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def color_engine(*, batch: int | None = 1, size: int = SIZE, channels: int = 3, dtype: str = "uint8") -> TinyEngine:
    """Answers ``logits``: the mean of each channel of ``image``, through a convolution ``conv``; exact in float32."""
    image = ops.parameter([-1 if batch is None else batch, size, size, channels], np.dtype(dtype).type, name="image")
    image.output(0).set_names({"image"})
    planes = ops.transpose(ops.convert(image, "f32"), np.asarray([0, 3, 1, 2]))
    weights = np.eye(channels, dtype=np.float32)[:, :, None, None]
    same = ops.convolution(planes, weights, [1, 1], [0, 0], [0, 0], [1, 1], name="conv")
    logits = ops.reduce_mean(ops.relu(same), np.asarray([2, 3]), keep_dims=False)
    shape: tuple[int | None, ...] = (batch, size, size, channels)
    return TinyEngine(
        files=_ir([("logits", logits)], [image]),
        inputs=(TensorSpec(name="image", dtype=dtype, shape=shape),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(batch, channels)),),
    )


def pair_engine(*, batch: int | None = 1) -> TinyEngine:
    """Two inputs ``a`` and ``b``, two outputs ``sum`` and ``difference``."""
    parameters = []
    for name in ("a", "b"):
        parameter = ops.parameter([-1 if batch is None else batch, 4], np.float32, name=name)
        parameter.output(0).set_names({name})
        parameters.append(parameter)
    return TinyEngine(
        files=_ir([("sum", ops.add(*parameters)), ("difference", ops.subtract(*parameters))], parameters),
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=(batch, 4)) for name in ("a", "b")),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=(batch, 4)) for name in ("sum", "difference")),
    )


def heavy_engine(*, mebibytes: int) -> TinyEngine:
    """A matrix of that many MiB of weights, for tests of memory."""
    vector = ops.parameter([1, 1024], np.float32, name="x")
    vector.output(0).set_names({"x"})
    weights = np.random.default_rng(0).normal(size=(1024, 256 * mebibytes)).astype(np.float32)
    product = ops.matmul(vector, weights, False, False)
    return TinyEngine(
        files=_ir([("y", product)], [vector]),
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 1024)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 256 * mebibytes)),),
    )


@dataclass(frozen=True, kw_only=True)
class EntryPlan:
    """What differs between the entries of a test's bundle."""

    target: str = "x86-cpu"
    engine: TinyEngine | None = field(default_factory=color_engine)
    kind: str = "openvino-ir"
    requires: Requires = field(default_factory=Requires)
    golden_offset: float = 0.0


def write_color_bundle(path: Path, *plans: EntryPlan, task: Mapping[str, Any] | str | None = "default") -> Path:
    """Writes a bundle of color engines; ``task`` None leaves the task out."""
    files: dict[str, bytes] = {}

    def stored(folder: str, data: bytes, suffix: str) -> str:
        name = store_name(folder, data, suffix)
        files[name] = data
        return name

    entries = []
    for plan in plans if plans else (EntryPlan(),):
        like = color_engine() if plan.engine is None else plan.engine
        spec = like.inputs[0]
        shape = (3, *(1 if size is None else size for size in spec.shape[1:]))
        golden = np.random.default_rng(0).integers(0, 256, shape).astype(spec.dtype)
        reference = golden.mean((1, 2), dtype=np.float32) + np.float32(plan.golden_offset)
        record = None
        if plan.engine is not None:
            record = EngineRecord(
                kind=plan.kind,
                files={role: stored("engines", data, f".{role}") for role, data in plan.engine.files.items()},
            )
        entries.append(
            Entry(
                target=plan.target,
                backend="openvino" if plan.kind == "openvino-ir" else "tensorrt",
                precision="fp32",
                graph=stored("graphs", b"no session reads the portable graph", ".onnx"),
                engine=record,
                options=dict(CPU),
                inputs=like.inputs,
                outputs=like.outputs,
                requires=plan.requires,
                golden=Golden(
                    inputs={spec.name: stored("golden", array_bytes(golden), ".npy")},
                    outputs={like.outputs[0].name: stored("golden", array_bytes(reference), ".npy")},
                    rel_l2=1e-3,
                ),
                latency="measured",
                accuracy="none",
            )
        )
    default = {"task": "classification", "labels": list(LABELS), "input": {"size": [SIZE, SIZE]}, "activation": "none"}
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR),
        producer={"edgekit": "test"},
        name="colors",
        task=default if task == "default" else (None if task is None else dict(task)),  # type: ignore[arg-type]
        entries=tuple(entries),
    )
    write_bundle(path, manifest=manifest, files=files, report={})
    return path


def solid(color: str, *, height: int = 20, width: int = 30) -> Array:
    """Returns a BGR frame of one colour."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., LABELS.index(color)] = 200
    return frame


def renamed(engine: TinyEngine, output: str) -> TinyEngine:
    """Returns an engine whose interface claims another output name than its IR has."""
    return replace(engine, outputs=(replace(engine.outputs[0], name=output),))


def _ir(outputs: list[tuple[str, Any]], parameters: list[Any]) -> dict[str, bytes]:
    results = []
    for name, value in outputs:
        result = ops.result(value)
        result.output(0).set_names({name})
        results.append(result)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.serialize(ov.Model(results, parameters, "tiny"), path)
        return {"xml": path.read_bytes(), "bin": path.with_suffix(".bin").read_bytes()}
