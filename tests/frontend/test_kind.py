"""Content decides what a file is; its suffix never does."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from edgekit.frontend.kind import Kind, identify
from tests.frontend.models import IMAGE, Small, Task, seeded


def exported(path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings(), path.open("wb") as file:
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(seeded(Small).eval(), (torch.zeros(IMAGE),)), file)


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(seeded(Small).eval()), str(path))


def saved(path: Path) -> None:
    torch.save(seeded(Small).state_dict(), path)


def saved_legacy(path: Path) -> None:
    torch.save(seeded(Small).state_dict(), path, _use_new_zipfile_serialization=False)


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def onnx_file(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    path.write_bytes(helper.make_model(graph, producer_name="test").SerializeToString())
    onnx.checker.check_model(str(path))


FILES: list[tuple[Callable[[Path], None], Kind]] = [
    (exported, Kind.EXPORTED),
    (scripted, Kind.TORCHSCRIPT),
    (saved, Kind.CHECKPOINT),
    (saved_legacy, Kind.CHECKPOINT_LEGACY),
    (safetensors, Kind.SAFETENSORS),
    (onnx_file, Kind.ONNX),
]


@pytest.mark.parametrize(("make", "kind"), FILES, ids=lambda item: getattr(item, "__name__", None))
def test_kind_is_told_from_the_content(make: Callable[[Path], None], kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "anything.jpg"
    make(path)
    assert identify(path) is kind


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 a photo", "first bytes"),
        (b"hello world, this is text", "first bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!doctype html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.", "bare pickle"),
        (b"PK\x03\x04" + bytes(60), "damaged zip"),
        (b"\x08\x09" + bytes(30), "first bytes"),
        (bytes(100), "first bytes"),
    ],
)
def test_what_is_no_model_says_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        load_program(path, task=Task())
    assert caught.value.hint
    assert str(path) in caught.value.message


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ModelError, match="cannot read the model file"):
            identify(path)


def test_other_zip_is_an_error_that_lists_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday/photo.jpg", b"")
    with pytest.raises(ModelError, match=r"not a model: it holds holiday/photo\.jpg"):
        identify(path)


def test_onnx_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx_file(path)
    with pytest.raises(ModelError, match="ONNX file, which edgekit does not read yet") as caught:
        load_program(path, task=Task())
    assert "--arch" in str(caught.value)
