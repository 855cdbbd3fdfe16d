"""Golden inputs, drawn or taken from the data, and what a program answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch

from edgekit.compiler.images import Images
from edgekit.passes.samples import Batch
from edgekit.program import Program
from edgekit.tensorspec import TensorSpec

__all__ = ["golden_from", "golden_inputs", "golden_outputs", "golden_rows"]

Array = np.ndarray[Any, Any]


def golden_inputs(program: Program, *, count: int, seed: int) -> dict[str, Array]:
    """Draws golden inputs: random pictures for images, normal values for other inputs.

    The pictures are smooth, weakly coloured and a little noisy, as photographs are: what is unlike them drives a
    network into ranges that calibration never saw, and the outputs then say little about the engine.

    Returns:
        Input name to an array of shape (count, ...).
    """
    generator = np.random.default_rng(seed)
    return {spec.name: np.stack([_draw(spec, generator) for _ in range(count)]) for spec in program.inputs}


def golden_from(images: Images, program: Program, *, count: int) -> dict[str, Array]:
    """Takes the first readable images, at most ``count``, for a program with one image input."""
    return {program.inputs[0].name: np.stack([image.pixels for image in islice(images, count)])}


def golden_rows(program: Program, inputs: Mapping[str, Array]) -> list[Batch]:
    """Returns golden inputs as a program takes them, one by one, as an engine of batch 1 does."""
    tensors = tuple(torch.from_numpy(inputs[spec.name]) for spec in program.inputs)
    return [tuple(item[index : index + 1] for item in tensors) for index in range(len(tensors[0]))]


def golden_outputs(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a program on golden inputs one by one.

    Returns:
        Output name to an array of shape (count, ...).
    """
    rows = [program.run(*row) for row in golden_rows(program, inputs)]
    return {
        spec.name: np.concatenate([row[position].numpy() for row in rows])
        for position, spec in enumerate(program.outputs)
    }


def _draw(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape[1:])
    dtype = np.dtype(spec.dtype)
    if len(shape) != 3 or shape[2] not in (1, 3):
        if np.issubdtype(dtype, np.integer):
            return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
        return generator.standard_normal(shape).astype(dtype)
    height, width, channels = shape
    cells = (max(2, height // 8), max(2, width // 8))
    brightness = 0.15 + 0.7 * generator.random((*cells, 1), dtype=np.float32)
    tint = 0.15 * (generator.random((*cells, channels), dtype=np.float32) - 0.5)
    smooth = cv2.resize(brightness + tint, (width, height), interpolation=cv2.INTER_CUBIC).reshape(shape)
    picture = np.clip(smooth + 0.02 * generator.standard_normal(shape, dtype=np.float32), 0, 1)
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 255.0
    return np.round(picture * top).astype(dtype)
