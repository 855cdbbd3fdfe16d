"""The fresh process of one calibration: ``python -m benchmarks.calibration_worker '<json>'``.

``edgekit``: quantization alone, all that the default recipe does, from the folded float program to the quantized one.
``nncf``: ``nncf.quantize`` alone, from the converted float model to the quantized one. Both read and decode the images
within the clock. ``compile``: the whole of ``edgekit.compile``, from module to bundle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

import edgekit
from benchmarks.fresh import answer
from benchmarks.nncf_build import convert, quantize
from benchmarks.zoo.networks import NETWORKS, make
from benchmarks.zoo.pictures import MEAN, STD
from edgekit.bench.probe_process import peak_rss_bytes
from edgekit.calibration import load_recipe
from edgekit.compiler.images import Images
from edgekit.compiler.quantization import quantize as quantize_program
from edgekit.data import Dataset, choose, read_folder, read_frame
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.samples import CalibrationData
from edgekit.progress import SilentProgress
from edgekit.runtime.machine import default_target
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import ClassificationSpec
from edgekit.targets import load_target

__all__ = ["main"]

# What ``compile`` opens and checks in full is this machine's own target.
TARGET, RECIPE = default_target().name, "default"
_CLASSES = 1000


def photograph_spec(size: tuple[int, int]) -> ClassificationSpec:
    """Returns the task of a classifier for photographs."""
    image = ImageInput(size=size, scale=1 / 255, mean=MEAN, std=STD)
    return ClassificationSpec(input=image, labels=tuple(f"class {index}" for index in range(_CLASSES)))


def edgekit_call(module: nn.Module, spec: ClassificationSpec, dataset: Dataset) -> Callable[[], object]:
    """Returns edgekit's quantization with the default recipe, ready to run."""
    context = PassContext(progress=SilentProgress())
    floating = run_passes(load_program(module, task=spec), [FoldBatchNorm(), FoldPreprocessing()], context)
    recipe, rules = load_recipe(RECIPE), load_target(TARGET).quantize
    images, size = Images(dataset, spec), recipe.batch_size if floating.dynamic_batch else 1
    data = CalibrationData(source=lambda: images.batches(size), count=len(images), name_of=images.name_of)
    return lambda: quantize_program(floating, rules=rules, recipe=recipe, data=data, context=context)


def nncf_call(
    module: nn.Module, spec: ClassificationSpec, dataset: Dataset, *, transformer: bool
) -> Callable[[], object]:
    """Returns ``nncf.quantize`` with its defaults, ready to run."""
    model = convert(module, (1, 3, *spec.input.size))
    mean, std = (np.array(values, dtype=np.float32) for values in (MEAN, STD))

    def pixels(path: Path) -> np.ndarray:
        image = read_frame(path, spec.input)[..., ::-1].astype(np.float32) / 255
        return np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)[np.newaxis])

    paths = [sample.path for sample in dataset.samples]
    return lambda: quantize(model, paths, "performance", transformer=transformer, transform=pixels)


def main(task: dict[str, Any]) -> None:
    name, data = task["network"], Path(task["data"])
    network, module = NETWORKS[name], make(name)
    spec = photograph_spec(network.size)
    dataset = choose(read_folder(data, None), task["samples"], sampling="random", seed=task["seed"])
    if task["kind"] == "compile":

        def call() -> object:
            return edgekit.compile(
                module,
                task=spec,
                data=data,
                target=TARGET,
                precision="int8",
                recipe=RECIPE,
                samples=task["samples"],
                seed=task["seed"],
                timing=False,
                output=Path(task["work"]) / f"{name}.edge",
            )

    elif task["kind"] == "edgekit":
        call = edgekit_call(module, spec, dataset)
    else:
        call = nncf_call(module, spec, dataset, transformer=network.transformer)
    before = peak_rss_bytes()
    start = perf_counter()
    call()
    answer({"seconds": perf_counter() - start, "before_rss_bytes": before, "peak_rss_bytes": peak_rss_bytes()})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
