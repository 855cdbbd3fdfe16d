"""Safetensors files, read without a library: a JSON header and raw little-endian tensors; nothing in them can run."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import ModelError

__all__ = ["read_safetensors"]


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads every tensor of a safetensors file.

    Source: https://github.com/huggingface/safetensors, README, "Format": 8 bytes of header length (uint64,
    little-endian), the header as JSON ``{name: {dtype, shape, data_offsets}}``, then the tensors.

    Returns:
        Name to tensor, on the CPU, in the file's own dtype and shape.

    Raises:
        ModelError: The header does not fit the data.
    """
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    return {name: _tensor(path, data, start, name, entry) for name, entry in header.items()}


def _tensor(path: Path, data: bytearray, start: int, name: str, entry: Any) -> torch.Tensor:
    dtypes = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
        "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    try:
        dtype, shape, (begin, end) = (
            dtypes[entry["dtype"]],
            [int(size) for size in entry["shape"]],
            entry["data_offsets"],
        )
        size = prod(shape) * dtype.itemsize
        if min([begin, *shape], default=0) < 0 or end - begin != size or start + end > len(data):
            raise ValueError(f"shape {shape} of {entry['dtype']} does not fit bytes {begin} to {end}")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: damaged safetensors file: tensor '{name}': {error}", hint="copy or save the file again"
        ) from error
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return (
        torch.frombuffer(data, dtype=torch.uint8, count=size, offset=start + begin).clone().view(dtype).reshape(shape)
    )
