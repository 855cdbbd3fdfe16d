"""The fresh process of one network: ``python -m benchmarks.tensorrt_engines_worker '<json>'``.

Makes the graphs that an NVIDIA target gets, holds them against the rules of its TensorRT release and against ONNX
Runtime, and builds each with TensorRT-RTX.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.fresh import answer
from benchmarks.noise import sqnr_db
from benchmarks.zoo.networks import NETWORKS, make
from benchmarks.zoo.pictures import normalized, pictures
from edgekit.backends import get_backend
from edgekit.backends.base import PortableGraph
from edgekit.calibration import load_recipe
from edgekit.compiler.quantization import quantize
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.half import ToHalf
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import SilentProgress
from edgekit.targets import Target, load_target

__all__ = ["programs"]

CALIBRATION_SEED, CHECKED_SEED = 2, 5
# A TensorRT-RTX plan carries the source text of kernels that the device compiles.
_TEXT = re.compile(rb"[\t\n\r -~]{12,}")


def programs(name: str, target: Target, images: torch.Tensor) -> dict[str, Program]:
    """Returns the network as int8 with fp16 around it, as fp16, and as it is."""
    recipe, context = load_recipe("fast"), PassContext(progress=SilentProgress())
    floating = run_passes(load_program(make(name), task=None, example_inputs=(images[:1],)), [FoldBatchNorm()], context)
    size = recipe.batch_size if floating.dynamic_batch else 1
    data = CalibrationData(source=lambda: ((batch,) for batch in images.split(size)), count=len(images))
    quantized = quantize(floating, rules=target.quantize, recipe=recipe, data=data, context=context).program
    return {
        "int8": run_passes(quantized, [ToHalf()], context),
        "fp16": run_passes(floating, [ToHalf()], context),
        "fp32": floating,
    }


def agreement_db(graph: PortableGraph, program: Program, images: torch.Tensor) -> float:
    """Signal-to-noise ratio of the exported graph, run without any optimization, against the program."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.data, options)
    name = graph.inputs[0].name
    answers = [session.run(None, {name: image.numpy()[np.newaxis]})[0] for image in images]
    return sqnr_db(_answers(program, images), np.stack(answers))


def built(graph: PortableGraph, target: Target) -> dict[str, Any]:
    """Returns what became of one graph."""
    backend = get_backend(target.backend)
    refused = [item for item in backend.supports(graph, target) if not item.supported]
    if refused:
        return {"refused": [f"{graph.described(item.node, item.operator)}: {item.reason}" for item in refused]}
    plan = backend.build(graph, target).files["plan"]
    text = sum(len(match[0]) for match in _TEXT.finditer(plan))
    return {"engine_bytes": len(plan), "text_bytes": text, "graph_bytes": len(graph.data)}


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    target, size = load_target(task["target"]), NETWORKS[task["network"]].size
    made = programs(task["network"], target, normalized(pictures(task["images"], size, seed=CALIBRATION_SEED)))
    checked = normalized(pictures(task["checked"], size, seed=CHECKED_SEED))
    floats = _answers(made["fp32"], checked)
    facts: dict[str, Any] = {}
    for precision, program in made.items():
        graph = export_portable(program, portable=target.portable, precision=precision, dynamic_batch=False)
        facts[precision] = {
            "sqnr_db": _finite(sqnr_db(floats, _answers(program, checked))),
            "onnxruntime_db": _finite(agreement_db(graph, program, checked)),
            "static": built(graph, target),
        }
        if precision != "fp32" and program.dynamic_batch:
            dynamic = export_portable(program, portable=target.portable, precision=precision, dynamic_batch=True)
            facts[precision]["dynamic"] = built(dynamic, target)
    answer({"precisions": facts})


def _finite(decibels: float) -> float | None:
    """None stands for equal answers: JSON has no infinity."""
    return decibels if math.isfinite(decibels) else None


def _answers(program: Program, images: torch.Tensor) -> np.ndarray:
    return np.stack([program.run(image.unsqueeze(0))[0].numpy() for image in images])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
