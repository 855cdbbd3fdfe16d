"""The fresh process that makes all sides of one network: ``python -m benchmarks.networks_build '<json>'``.

Both tools get the same torch module and the same calibration pictures, as normalized float NCHW, and each gives an
OpenVINO IR that takes float NCHW. The signal-to-noise ratio of each is over other pictures, against the module in
torch.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import nn

from benchmarks.engine_worker import compile_ir, count_layers, executed
from benchmarks.fresh import answer
from benchmarks.nncf_build import PRESETS, convert, quantize
from benchmarks.noise import sqnr_db
from benchmarks.zoo.networks import NETWORKS, Network, make
from benchmarks.zoo.pictures import normalized, pictures
from edgekit.backends import get_backend
from edgekit.calibration import load_recipe
from edgekit.compiler.quantization import quantize as quantize_program
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.samples import CalibrationData
from edgekit.progress import SilentProgress
from edgekit.targets import load_target

__all__ = ["OURS", "TARGET"]

OURS = "edgekit"
TARGET = "x86-cpu"
# Ranges were chosen with pictures of other seeds in sight.
CALIBRATION_SEED, HELD_OUT_SEED = 2, 5


def build_edgekit(module: nn.Module, images: torch.Tensor, recipe_name: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns IR files and what the quantization says about itself."""
    target, recipe, context = load_target(TARGET), load_recipe(recipe_name), PassContext(progress=SilentProgress())
    program = load_program(module, task=None, example_inputs=(images[:1],))
    floating = run_passes(program, [FoldBatchNorm()], context)
    size = recipe.batch_size if floating.dynamic_batch else 1
    data = CalibrationData(source=lambda: ((batch,) for batch in images.split(size)), count=len(images))
    start = perf_counter()
    quantized = quantize_program(floating, rules=target.quantize, recipe=recipe, data=data, context=context).program
    seconds = perf_counter() - start
    graph = export_portable(quantized, portable=target.portable, precision="int8", dynamic_batch=False)
    history = quantized.history[len(floating.history) :]
    facts = {
        "quantize_s": seconds,
        "history": [record.summary for record in history],
        "left_float": [f"{item.where}: {item.why}" for record in history for item in record.skipped],
    }
    return dict(get_backend(target.backend).build(graph, target).files), facts


def nncf_kinds(network: Network) -> dict[str, dict[str, Any]]:
    """Returns the ways in which NNCF is asked, by the ending of their name; each goes with both presets."""
    kinds: dict[str, dict[str, Any]] = {"": {}}
    if network.transformer:
        kinds["-transformer"] = {"transformer": True}
    if network.recurrent:
        kinds["-recurrent-float"] = {"ignored_types": network.recurrent}
    return kinds


def evaluate(path: Path, images: torch.Tensor, references: list[np.ndarray], threads: int) -> dict[str, Any]:
    """Returns a side's signal-to-noise ratio, over all pictures and of the median picture, and the layers it runs."""
    compiled = compile_ir(path, threads=threads)
    answers = [compiled([image[np.newaxis]])[0].copy() for image in images.numpy()]
    each = [sqnr_db(reference, answer) for reference, answer in zip(references, answers, strict=True)]
    return {
        "sqnr_db": sqnr_db(np.stack(references), np.stack(answers)),
        "median_sqnr_db": float(np.median(each)),
        "layers": count_layers(executed(compiled)),
    }


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    name, work = task["network"], Path(task["work"])
    network = NETWORKS[name]
    work.mkdir(parents=True, exist_ok=True)
    module = make(name)
    calibration = normalized(pictures(task["images"], network.size, seed=CALIBRATION_SEED))
    held_out = normalized(pictures(task["held_out"], network.size, seed=HELD_OUT_SEED))
    with torch.no_grad():
        references = [module(image.unsqueeze(0)).numpy() for image in held_out]
    np.savez(work / "inputs.npz", pixels=held_out[:1].numpy())
    facts: dict[str, Any] = {}
    if "edgekit" in task["sides"]:
        files, facts["edgekit"] = build_edgekit(module, calibration, task["recipe"])
        for role, content in files.items():
            (work / f"{OURS}.{role}").write_bytes(content)
    if "nncf" in task["sides"]:
        shape = (1, 3, *network.size)
        ov.save_model(convert(module, shape), work / "float.xml", compress_to_fp16=False)
        facts["float"] = {}
        images = [image[np.newaxis] for image in calibration.numpy()]
        for kind, options in nncf_kinds(network).items():
            for preset in PRESETS:
                side = f"nncf-{preset}{kind}"
                start = perf_counter()
                model = quantize(convert(module, shape), images, preset, **options)
                facts[side] = {"quantize_s": perf_counter() - start}
                ov.save_model(model, work / f"{side}.xml", compress_to_fp16=False)
                del model
                gc.collect()
    for side, item in facts.items():
        item |= evaluate(work / f"{side}.xml", held_out, references, task["threads"])
    answer({"sides": facts})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
