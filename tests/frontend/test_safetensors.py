"""Safetensors files against the library where it is there, and damaged ones without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import ModelError
from edgekit.frontend.safetensors import read_safetensors


def write(path: Path, header: dict[str, Any], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5),
        "c": torch.randn(2, 2).bfloat16(),
        "d": torch.tensor(True),
        "e": torch.empty(0, 3),
        "f": torch.randn(7).half(),
    }
    library.save_file(tensors, tmp_path / "m", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "m")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


def test_reads_by_offsets(tmp_path: Path) -> None:
    header = {
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]},
        "a": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]},
    }
    found = read_safetensors(write(tmp_path / "m", header, bytes(range(6))))
    assert found["a"].tolist() == [[0, 1], [2, 3]]
    assert found["b"].tolist() == [4, 5]


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1]},
        "text",
    ],
)
def test_damage_is_an_error_that_names_the_tensor(entry: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="damaged safetensors file: tensor 'w'"):
        read_safetensors(write(tmp_path / "m", {"w": entry}, bytes(4)))
