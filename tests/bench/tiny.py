"""A tiny bundle with a real OpenVINO engine: it tells blue, green and red images apart by their mean colour."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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

LABELS = ("blue", "green", "red")
SIZE = 16


def write_tiny_bundle(path: Path, *, work: int = 0, task: bool = True) -> Path:
    """Writes the bundle; ``work`` adds that many convolutions of 32 channels, which change nothing but the time."""
    model = _model(work)
    xml, weights = _ir(model)
    golden = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    reference = np.concatenate([compiled({"image": image[None]})["logits"] for image in golden])
    files: dict[str, bytes] = {}

    def stored(folder: str, data: bytes, suffix: str) -> str:
        name = store_name(folder, data, suffix)
        files[name] = data
        return name

    entry = Entry(
        target="x86-cpu",
        backend="openvino",
        precision="fp32",
        graph=stored("graphs", b"the portable graph, which no session reads", ".onnx"),
        engine=EngineRecord(
            kind="openvino-ir",
            files={"xml": stored("engines", xml, ".xml"), "bin": stored("engines", weights, ".bin")},
        ),
        options={"device": "CPU", "properties": {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}},
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(1, SIZE, SIZE, 3)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 3)),),
        requires=Requires(),
        golden=Golden(
            inputs={"image": stored("golden", array_bytes(golden), ".npy")},
            outputs={"logits": stored("golden", array_bytes(reference), ".npy")},
            rel_l2=1e-3,
        ),
        latency="measured",
        accuracy="none",
    )
    spec: dict[str, Any] = {"task": "classification", "labels": list(LABELS), "input": {"size": [SIZE, SIZE]}}
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR),
        producer={"edgekit": "test"},
        name=f"tiny{work}",
        task=spec if task else None,
        entries=(entry,),
    )
    write_bundle(path, manifest=manifest, files=files, report={})
    return path


def write_colored_images(root: Path, *, count: int = 4, wrong: int = 0) -> Path:
    """Writes images of each colour into its class folder; the first ``wrong`` of ``blue`` are red."""
    for channel, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for number in range(count):
            image = np.full((20, 24, 3), 10 * number, np.uint8)
            image[..., 2 if label == "blue" and number < wrong else channel] = 200
            cv2.imencode(".png", image)[1].tofile(root / label / f"{number}.png")
    return root


def _model(work: int) -> ov.Model:
    image = ops.parameter([1, SIZE, SIZE, 3], np.uint8, name="image")
    image.output(0).set_names({"image"})
    planes = ops.transpose(ops.convert(image, "f32"), np.asarray([0, 3, 1, 2]))
    logits = ops.reduce_mean(planes, np.asarray([2, 3]), keep_dims=False)
    generator = np.random.default_rng(0)
    branch, channels = planes, 3
    for _ in range(work):
        weights = generator.normal(0, 0.05, (32, channels, 3, 3)).astype(np.float32)
        branch = ops.relu(ops.convolution(branch, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        channels = 32
    if work:
        extra = ops.reduce_mean(branch, np.asarray([1, 2, 3]), keep_dims=False)
        logits = ops.add(logits, ops.unsqueeze(ops.multiply(extra, np.float32(1e-6)), np.asarray([1])))
    result = ops.result(logits)
    result.output(0).set_names({"logits"})
    return ov.Model([result], [image], "tiny")


def _ir(model: ov.Model) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
