"""Images on their way into programs and engines: calibration batches, golden inputs, and evaluation in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch

from edgekit.data import Dataset, iterate
from edgekit.evaluate import evaluate
from edgekit.passes.quantize.calibrate import Batches
from edgekit.program import Program
from edgekit.progress import Progress
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.tasks.base import Spec
from edgekit.tasks import MetricReport
from edgekit.tensorspec import TensorSpec

__all__ = ["batches_of", "evaluate_program", "golden_inputs", "golden_outputs", "prepared"]

Array = np.ndarray[Any, Any]
_EVALUATION_BATCH = 32


def prepared(dataset: Dataset, spec: Spec) -> Iterator[Array]:
    """Yields each readable image of a data set as the engine takes it: HWC at the model's size, in the spec's dtype."""
    for _, frame in iterate(dataset, spec.input):
        yield resize_frame(frame, spec.input)


def batches_of(dataset: Dataset, spec: Spec, *, size: int) -> Batches:
    """Returns a function that gives a fresh iterator over batches of at most ``size`` images, read when needed."""

    def batches() -> Iterator[tuple[torch.Tensor, ...]]:
        waiting: list[Array] = []
        for image in prepared(dataset, spec):
            waiting.append(image)
            if len(waiting) == size:
                yield (torch.from_numpy(np.stack(waiting)),)
                waiting = []
        if waiting:
            yield (torch.from_numpy(np.stack(waiting)),)

    return batches


def golden_inputs(program: Program, *, count: int, seed: int) -> dict[str, Array]:
    """Draws golden inputs: smooth random pictures with some noise for images, normal values for other inputs.

    Smooth, because white noise drives a network into ranges that calibration on pictures never saw.

    Returns:
        Input name to an array of shape (count, ...).
    """
    generator = np.random.default_rng(seed)
    return {spec.name: np.stack([_draw(spec, generator) for _ in range(count)]) for spec in program.inputs}


def _draw(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape[1:])
    dtype = np.dtype(spec.dtype)
    if len(shape) != 3 or shape[2] not in (1, 3):
        if np.issubdtype(dtype, np.integer):
            return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
        return generator.standard_normal(shape).astype(dtype)
    height, width, channels = shape
    coarse = generator.random((max(2, height // 8), max(2, width // 8), channels), dtype=np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(shape)
    picture = np.clip(smooth + 0.03 * generator.standard_normal(shape, dtype=np.float32), 0, 1)
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 255.0
    return np.round(picture * top).astype(dtype)


def golden_outputs(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a program on golden inputs one by one, as an engine of batch 1 does.

    Returns:
        Output name to an array of shape (count, ...).
    """
    count = len(next(iter(inputs.values())))
    rows: list[tuple[torch.Tensor, ...]] = []
    for index in range(count):
        feeds = [torch.from_numpy(inputs[spec.name][index : index + 1]) for spec in program.inputs]
        rows.append(program.run(*feeds))
    return {
        spec.name: np.concatenate([row[position].numpy() for row in rows])
        for position, spec in enumerate(program.outputs)
    }


def evaluate_program(program: Program, spec: Spec, dataset: Dataset, *, label: str, progress: Progress) -> MetricReport:
    """Measures the task's metric on a folded program, in batches where the program takes them."""
    outputs = iter(_outputs(program, spec, dataset, label, progress))
    return evaluate(lambda _: next(outputs), spec, dataset)


def _outputs(
    program: Program, spec: Spec, dataset: Dataset, label: str, progress: Progress
) -> Iterator[dict[str, Array]]:
    size = _EVALUATION_BATCH if program.dynamic_batch else 1
    with progress.task(label, len(dataset)) as bar:
        for batch in batches_of(dataset, spec, size=size)():
            results = program.run(*batch)
            for index in range(len(batch[0])):
                yield {
                    item.name: result[index : index + 1].numpy()
                    for item, result in zip(program.outputs, results, strict=True)
                }
                bar.advance(1)
