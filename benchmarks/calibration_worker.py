"""The fresh process of one calibration: ``python -m benchmarks.calibration_worker '<json>'``.

``edgekit``: the quantization pass alone, from the folded float program to the quantized program. ``nncf``:
``nncf.quantize`` alone, from the converted float model to the quantized one. Both read and decode the images within the
clock. ``compile``: the whole of ``edgekit.compile``, from checkpoint to bundle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.cifar import MODELS, compile_checkpoint, float_pixels, read_images, read_spec
from benchmarks.fresh import answer
from edgekit.bench.probe_process import peak_rss_bytes
from edgekit.calibration import load_recipe
from edgekit.data import Dataset, choose, iterate, read_frame
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.quantize import Quantize
from edgekit.progress import SilentProgress
from edgekit.targets import load_target

__all__ = ["main"]


def edgekit_pass(checkpoint: Path, dataset: Dataset) -> Callable[[], object]:
    """Returns the quantization pass with the default recipe, ready to run."""
    spec, context = read_spec(), PassContext(progress=SilentProgress())
    program = load_program(checkpoint, task=spec, arch="resnet_cifar:resnet56", arch_path=MODELS)
    floating = run_passes(program, [FoldBatchNorm(), FoldPreprocessing()], context)
    recipe = load_recipe("default")

    def batches() -> Iterator[tuple[torch.Tensor, ...]]:
        waiting: list[np.ndarray] = []
        for _, frame in iterate(dataset, spec.input):
            waiting.append(frame)
            if len(waiting) == recipe.batch_size:
                yield (torch.from_numpy(np.stack(waiting)),)
                waiting = []
        if waiting:
            yield (torch.from_numpy(np.stack(waiting)),)

    rules = load_target("x86-cpu").quantize
    step = Quantize(rules=rules, recipe=recipe, batches=batches, count=len(dataset))
    return lambda: run_passes(floating, [step], context)


def nncf_call(checkpoint: Path, dataset: Dataset) -> Callable[[], object]:
    """Returns ``nncf.quantize`` with its defaults, ready to run."""
    import nncf

    from benchmarks.nncf_build import convert

    model, pixels = convert(checkpoint), read_spec().input
    images = nncf.Dataset(
        [sample.path for sample in dataset.samples], lambda path: float_pixels(read_frame(path, pixels))
    )
    return lambda: nncf.quantize(model, images, subset_size=len(dataset))


def main(task: dict[str, Any]) -> None:
    checkpoint, data = Path(task["checkpoint"]), Path(task["data"])
    if task["kind"] == "compile":

        def call() -> object:
            output = Path(task["work"]) / "model.edge"
            return compile_checkpoint(
                checkpoint, data, output, precision="int8", seed=task["seed"], samples=task["samples"], max_eval=100
            )

    else:
        dataset = choose(read_images(data), task["samples"], sampling="stratified", seed=task["seed"])
        call = {"edgekit": edgekit_pass, "nncf": nncf_call}[task["kind"]](checkpoint, dataset)
    before = peak_rss_bytes()
    start = perf_counter()
    call()
    answer({"seconds": perf_counter() - start, "before_rss_bytes": before, "peak_rss_bytes": peak_rss_bytes()})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
