"""The graphs that an NVIDIA target gets of a network, held against its rules, ONNX Runtime and TensorRT-RTX's builder.

Shared by the benchmark of the 26 networks and by the test of the examples. Nothing here needs a GPU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.noise import sqnr_db
from edgekit.backends import get_backend
from edgekit.backends.base import PortableGraph
from edgekit.calibration import load_recipe
from edgekit.compiler.quantization import quantize
from edgekit.export import export_portable
from edgekit.passes import PassContext, run_passes
from edgekit.passes.half import ToHalf
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import SilentProgress
from edgekit.targets import Target

__all__ = ["agreement_db", "built", "checked", "findings", "programs"]

FLOAT = "fp32"
_RECIPE = "fast"
_ALLOWED_DB = 20 * math.log10(1.5)
_FLOAT_DB = 60.0
# A TensorRT-RTX plan carries the source text of kernels that the device compiles.
_TEXT = re.compile(rb"[\t\n\r -~]{12,}")


def programs(floating: Program, target: Target, images: torch.Tensor) -> dict[str, Program]:
    """Returns a folded program as int8 with fp16 around it, as fp16, and as it is.

    Args:
        floating: Takes one input.
        target: Whose rules decide where int8 goes.
        images: (N, ...) as the program takes them, to calibrate on.
    """
    recipe, context = load_recipe(_RECIPE), PassContext(progress=SilentProgress())
    size = recipe.batch_size if floating.dynamic_batch else 1
    data = CalibrationData(source=lambda: ((batch,) for batch in torch.split(images, size)), count=len(images))
    quantized = quantize(floating, rules=target.quantize, recipe=recipe, data=data, context=context).program
    return {
        "int8": run_passes(quantized, [ToHalf()], context),
        "fp16": run_passes(floating, [ToHalf()], context),
        FLOAT: floating,
    }


def checked(
    made: Mapping[str, Program], floating: Program, target: Target, images: torch.Tensor
) -> dict[str, dict[str, Any]]:
    """Exports each program with a batch of one and, but for fp32, with a dynamic batch; builds and compares them.

    Args:
        made: As :func:`programs` returns them, or some of these.
        floating: What they were made of.
        target: Whose rules and options hold.
        images: (N, ...) on which graph and program are compared.

    Returns:
        Precision to ``sqnr_db`` (program against float), ``onnxruntime_db`` (graph against program), and what was built
        with a ``static`` and a ``dynamic`` batch. None stands for equal answers: JSON has no infinity.
    """
    floats = _answers(floating, images)
    facts: dict[str, dict[str, Any]] = {}
    for precision, program in made.items():
        graph = export_portable(program, portable=target.portable, precision=precision, dynamic_batch=False)
        facts[precision] = {
            "sqnr_db": _finite(sqnr_db(floats, _answers(program, images))),
            "onnxruntime_db": _finite(agreement_db(graph, program, images)),
            "static": built(graph, target),
        }
        if precision != FLOAT and program.dynamic_batch:
            dynamic = export_portable(program, portable=target.portable, precision=precision, dynamic_batch=True)
            facts[precision]["dynamic"] = built(dynamic, target)
    return facts


def agreement_db(graph: PortableGraph, program: Program, images: torch.Tensor) -> float:
    """Signal-to-noise ratio of the exported graph, run without any optimization, against the program."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
    name = graph.inputs[0].name
    answers = [session.run(None, {name: image.numpy()[np.newaxis]})[0] for image in images]
    return sqnr_db(_answers(program, images), np.stack(answers))


def built(graph: PortableGraph, target: Target) -> dict[str, Any]:
    """Returns what became of one graph: ``refused``, or the sizes of the engine and of the kernel text in it."""
    backend = get_backend(target.backend)
    refused = [item for item in backend.supports(graph, target) if not item.supported]
    if refused:
        return {"refused": [f"{graph.described(item.node, item.operator)}: {item.reason}" for item in refused]}
    plan = backend.build(graph, target).files["plan"]
    text = sum(len(match[0]) for match in _TEXT.finditer(plan))
    return {"engine_bytes": len(plan), "text_bytes": text, "graph_bytes": len(graph.data)}


def findings(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what is outside of the bounds, in words; nothing where all hold.

    Every graph keeps the rules and is built. ONNX Runtime answers as the program does to within one and a half times
    what the precision itself changes, the bound of the golden gate (two results that each err by that much,
    independently, differ by its square root of two); float32 to within 60 dB.

    Args:
        networks: Name to what :func:`checked` returned.
    """
    found = []
    for name, precisions in networks.items():
        for precision, item in precisions.items():
            for batch in ("static", "dynamic"):
                refused = item.get(batch, {}).get("refused", ())
                found += [f"{name}, {precision}, {batch} batch: {reason}" for reason in refused]
            bound = _FLOAT_DB if item["sqnr_db"] is None else item["sqnr_db"] - _ALLOWED_DB
            agreement = item["onnxruntime_db"]
            if agreement is not None and agreement < bound:
                found.append(f"{name}, {precision}: ONNX Runtime agrees to {agreement:.1f} dB, {bound:.1f} asked for")
    return found


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None


def _answers(program: Program, images: torch.Tensor) -> np.ndarray:
    return np.stack([program.run(image.unsqueeze(0))[0].numpy() for image in images])
