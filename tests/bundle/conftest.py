"""A small real bundle (ONNX graph, OpenVINO IR, golden arrays), and tools to forge bad ones from it."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    CompressedFile,
    EngineRecord,
    Entry,
    Golden,
    Manifest,
    array_bytes,
    store_name,
    write_bundle,
)
from edgekit.bundle.digest import canonical_json, content_digest
from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec

COMMENT_BYTES = 88
"""Length of ``edgekit-bundle/1 sha256:`` and 64 digits, typed here so that a change of the format is noticed."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a small bundle is made of."""

    manifest: Manifest
    files: dict[str, bytes]
    report: dict[str, Any]

    def write(self, path: Path) -> bytes:
        write_bundle(path, manifest=self.manifest, files=self.files, report=self.report)
        return path.read_bytes()


def onnx_graph() -> bytes:
    """Returns a real ONNX model: uint8 NHWC image, cast, mean over the pixels."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["scores"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def openvino_ir(graph: bytes, folder: Path) -> tuple[bytes, bytes]:
    """Returns the graph's real OpenVINO IR: xml and bin."""
    import openvino as ov

    (folder / "g.onnx").write_bytes(graph)
    ov.save_model(ov.convert_model(folder / "g.onnx"), folder / "g.xml", compress_to_fp16=False)
    return (folder / "g.xml").read_bytes(), (folder / "g.bin").read_bytes()


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    graph = onnx_graph()
    xml, weights = openvino_ir(graph, tmp_path_factory.mktemp("ir"))
    image = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    contents = {
        "graph": store_name("graphs", graph, ".onnx"),
        "xml": store_name("engines", xml, ".xml"),
        "bin": store_name("engines", weights, ".bin"),
        "image": store_name("golden", array_bytes(image), ".npy"),
        "scores": store_name("golden", array_bytes(image.mean((1, 2), dtype=np.float32)), ".npy"),
    }
    interface: dict[str, Any] = {
        "graph": contents["graph"],
        "inputs": (TensorSpec(name="image", dtype="uint8", shape=(1, 2, 2, 3)),),
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=(1, 3)),),
        "golden": Golden(inputs={"image": contents["image"]}, outputs={"scores": contents["scores"]}, rel_l2=0.01),
    }
    here = Entry(
        target="x86-cpu",
        backend="openvino",
        precision="int8",
        engine=EngineRecord(kind="openvino-ir", files={"xml": contents["xml"], "bin": contents["bin"]}),
        options={"device": "CPU", "properties": {"INFERENCE_PRECISION_HINT": "f32"}},
        requires=Requires(arch=("x86_64",), reason="made for x86"),
        latency="measured",
        accuracy="measured",
        **interface,
    )
    there = Entry(
        target="jetson-orin-nano",
        backend="tensorrt",
        precision="int8",
        engine=None,
        options={"workspace_mib": 512},
        requires=Requires(),
        latency="unverified",
        accuracy="simulated",
        **interface,
    )
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR),
        producer={"edgekit": "0.1", "openvino": "2026"},
        name="mean",
        task={
            "task": "classification",
            "labels": ["blue", "grün", "red\nish"],
            "input": {"size": [2, 2], "dtype": "uint8", "channels": 3, "color": "rgb", "resize": "letterbox"},
        },
        entries=(here, there),
    )
    files = {
        contents["graph"]: graph,
        contents["xml"]: xml,
        contents["bin"]: weights,
        contents["image"]: array_bytes(image),
        contents["scores"]: array_bytes(image.mean((1, 2), dtype=np.float32)),
    }
    return Sample(manifest=manifest, files=files, report={"latency_ms": {"p50": 1.25}, "history": ["quantized"]})


@pytest.fixture(scope="session")
def sample_bytes(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return sample.write(tmp_path_factory.mktemp("bundle") / "model.edge")


def seal(body: bytes) -> bytes:
    """Returns the bytes before an end comment with the comment that makes the whole file's digest right."""
    return body + f"edgekit-bundle/1 sha256:{hashlib.sha256(body).hexdigest()}".encode()


PLAN = b"kernel source text, which compresses; " * 40 + bytes(range(256))


@pytest.fixture(scope="session")
def packed(sample: Sample) -> Sample:
    """The small bundle with one more entry, whose engine is stored compressed."""
    stream = zlib.compress(PLAN)
    name = store_name("engines", stream, ".zlib")
    engine = EngineRecord(
        kind="tensorrt-rtx-plan", files={}, zlib={"plan": CompressedFile(file=name, size_bytes=len(PLAN))}
    )
    ahead = replace(sample.manifest.entries[1], target="rtx", backend="tensorrt_rtx", engine=engine)
    manifest = replace(sample.manifest, entries=(*sample.manifest.entries, ahead))
    return Sample(manifest=manifest, files={**sample.files, name: stream}, report=sample.report)


@dataclass(frozen=True, kw_only=True)
class Forge:
    """Builds bundles with Python's zipfile: right unless told otherwise, and always with a right end comment."""

    original: bytes

    def contents(self) -> dict[str, bytes]:
        """Returns name to content, in stored order."""
        with zipfile.ZipFile(io.BytesIO(self.original)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist()}

    def info(self, name: str) -> zipfile.ZipInfo:
        """Returns the one right form of a zip record."""
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.create_system = 3
        info.external_attr = 0o100644 << 16
        return info

    def pack(
        self,
        contents: Mapping[str, bytes] | list[tuple[str, bytes]],
        change: Callable[[zipfile.ZipInfo], None] | None = None,
    ) -> bytes:
        """Returns a sealed bundle; ``change`` is applied to each record."""
        items = list(contents.items()) if isinstance(contents, Mapping) else contents
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in items:
                info = self.info(name)
                if change is not None:
                    change(info)
                archive.writestr(info, data, compress_type=info.compress_type)
            archive.comment = bytes(COMMENT_BYTES)
        return seal(stream.getvalue()[:-COMMENT_BYTES])

    def body(self) -> bytearray:
        """Returns the bytes before the end comment, to be changed and sealed."""
        return bytearray(self.original[:-COMMENT_BYTES])

    def manifest(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self.contents()["manifest.json"])
        return copy.deepcopy(table)

    def with_manifest(self, table: dict[str, Any]) -> bytes:
        """Returns a bundle with another manifest, whose content digest is made right."""
        table = {**table, "content_digest": content_digest(table)}
        return self.pack({**self.contents(), "manifest.json": canonical_json(table, where="test")})


@pytest.fixture(scope="session")
def forge(sample_bytes: bytes) -> Forge:
    return Forge(original=sample_bytes)


@pytest.fixture(scope="session", name="seal")
def seal_fixture() -> Callable[[bytes], bytes]:
    return seal
