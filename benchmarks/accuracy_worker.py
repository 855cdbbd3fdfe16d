"""The fresh process of the accuracy benchmark: ``python -m benchmarks.accuracy_worker '<json>'``.

It takes one network and one calibration seed, quantizes with each tool on the same images, and answers with every
image's outcome, and with how near the answers are to the float network's. Seed ``null`` stands for the float network in
torch, whose answers are kept in a file for the others.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import edgekit
from benchmarks.fresh import answer
from benchmarks.trained import NETWORKS, Network, calibration_pixels, float_logits, load_module, read_all
from edgekit.compiler import CompileReport
from edgekit.compiler.shaping import Stage
from edgekit.evaluate import ReadImage, score
from edgekit.runtime import load

__all__ = ["FLOAT", "OURS", "compile_recipe", "divergences", "engine_logits", "fidelity", "outcomes"]

FLOAT = "float"
OURS = "edgekit-"  # and the recipe's name
_NO_LIMIT = 100.0  # points: what is measured here is the drop, so no gate may refuse it

Logits = npt.NDArray[np.float32]


def outcomes(network: Network, images: Sequence[ReadImage], logits: Iterable[Logits]) -> str:
    """Scores a model by the task's metric and returns one character for each image: 1 where top-1 is right, else 0."""
    pairs = zip(images, logits, strict=True)
    report = score(network.spec(), ((image, {"output": row}) for image, row in pairs))
    return "".join(str(int(correct)) for correct in report.per_sample)


def fidelity(reference: Logits, logits: Logits) -> dict[str, float]:
    """Says how near a model's answers are to the float network's, right or wrong.

    Args:
        reference, logits: (images, classes).

    Returns:
        ``agreement``, the share of images with the same class first; ``kl``, the Kullback-Leibler divergence of the
        model's class probabilities from the float network's, in nats, mean over the images.
    """
    return {
        "agreement": float((reference.argmax(1) == logits.argmax(1)).mean()),
        "kl": float(divergences(reference, logits).mean()),
    }


def divergences(reference: Logits, logits: Logits) -> npt.NDArray[np.float64]:
    """Returns the Kullback-Leibler divergence from the float network's class probabilities, in nats, image by image."""
    first, second = (_log_softmax(item.astype(np.float64)) for item in (reference, logits))
    result: npt.NDArray[np.float64] = (np.exp(first) * (first - second)).sum(1)
    return result


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def judge(
    network: Network, task: dict[str, Any], images: Sequence[ReadImage], logits: Iterable[Logits]
) -> dict[str, Any]:
    """Returns every image's outcome, and the fidelity to the float network; ``logits`` are (1, classes) each."""
    rows = list(logits)
    reference = np.load(task["float"], allow_pickle=False)
    return {"outcomes": outcomes(network, images, rows), **fidelity(reference, np.concatenate(rows))}


def compile_recipe(
    network: Network, task: dict[str, Any], recipe: str, bundle: Path, *, stages: Sequence[Stage] = ()
) -> CompileReport:
    """Compiles as a user does, to int8 whatever it costs; stages train on the images that calibration chooses from."""
    return edgekit.compile(
        task["checkpoint"],
        arch=network.arch,
        arch_path=network.arch_path,
        task=network.task,
        data=task["data"],
        eval_data=task["held"],
        stages=stages,
        train_data=task["data"] if stages else None,
        target="x86-cpu",
        recipe=recipe,
        precision="int8",
        seed=task["seed"],
        samples=task["samples"],
        max_drop=_NO_LIMIT,
        max_eval=32,
        threads=1,
        timing=False,
        output=bundle,
    )


def engine_logits(bundle: Path, images: Sequence[ReadImage]) -> tuple[list[Logits], dict[str, int]]:
    """Runs the engine that a bundle ships.

    Returns:
        Each image's logits, (1, classes), and how many layers that multiply ran in which precision.
    """
    with load(bundle, threads=1) as model:
        name = model.session.outputs[0].name
        rows = [model.session.infer({"image": image.pixels[np.newaxis]})[name].copy() for image in images]
        return rows, dict(Counter(layer.precision for layer in model.session.layers() if layer.compute))


def measure_recipe(
    network: Network, task: dict[str, Any], recipe: str, images: Sequence[ReadImage], folder: Path
) -> dict[str, Any]:
    """Evaluates the engine that a bundle ships."""
    bundle, started = folder / f"{recipe}.edge", time.perf_counter()
    compile_recipe(network, task, recipe, bundle)
    seconds = time.perf_counter() - started
    rows, layers = engine_logits(bundle, images)
    return {**judge(network, task, images, rows), "layers": layers, "seconds": seconds}


def measure_peer(
    network: Network, task: dict[str, Any], tool: str, images: Sequence[ReadImage], folder: Path
) -> dict[str, Any]:
    """Evaluates another tool's model, fed with normalized float."""
    # Their logging and their progress bars are not for stdout, which carries the answer.
    from benchmarks.peers import nncf_engine, ort_engine

    module = load_module(network, Path(task["checkpoint"]))
    calibration = calibration_pixels(network, Path(task["data"]), samples=task["samples"], seed=task["seed"])
    builds: dict[str, Callable[[], Any]] = {
        "nncf": lambda: nncf_engine(network, module, calibration, folder, full_bias_correction=False),
        "nncf-full": lambda: nncf_engine(network, module, calibration, folder, full_bias_correction=True),
        "onnxruntime": lambda: ort_engine(module, calibration, folder),
    }
    started = time.perf_counter()
    engine = builds[tool]()
    seconds = time.perf_counter() - started
    answers = (engine.logits(network.pixels(image.pixels)).copy() for image in images)
    return {**judge(network, task, images, answers), "layers": engine.layers(), "seconds": seconds}


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    network = NETWORKS[task["network"]]
    images = read_all(network, network.images(Path(task["images"])))
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for tool in task["tools"]:
            if tool == FLOAT:
                module = load_module(network, Path(task["checkpoint"]))
                pixels = [network.pixels(image.pixels) for image in images]
                rows = list(float_logits(module, pixels))
                np.save(task["float"], np.concatenate(rows))
                facts[tool] = {"outcomes": outcomes(network, images, rows)}
            elif tool.startswith(OURS):
                facts[tool] = measure_recipe(network, task, tool.removeprefix(OURS), images, Path(folder))
            else:
                facts[tool] = measure_peer(network, task, tool, images, Path(folder))
    answer(facts)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
