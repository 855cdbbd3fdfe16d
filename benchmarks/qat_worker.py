"""The fresh process of the QAT benchmark: ``python -m benchmarks.qat_worker '<json>'``.

It compiles one network twice for one seed, on the same calibration images: as the recipe has it, and with the int8
program trained behind it. Both engines see the same images; float answers are read from a file.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy_worker import compile_recipe, divergences, engine_logits, outcomes
from benchmarks.fresh import answer
from benchmarks.trained import NETWORKS, read_all
from edgekit.compiler import CompileReport
from edgekit.compiler.shaping import QatStage

__all__ = ["PTQ", "QAT", "training_of"]

PTQ, QAT = "ptq", "qat"


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    network = NETWORKS[task["network"]]
    images = read_all(network, network.images(Path(task["images"])))
    reference = np.load(task["float"], allow_pickle=False)
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for side, stages in ((PTQ, ()), (QAT, (QatStage(**task["training"]),))):
            bundle = Path(folder) / f"{side}.edge"
            report = compile_recipe(network, task, task["recipe"], bundle, stages=stages)
            rows, layers = engine_logits(bundle, images)
            logits = np.concatenate(rows)
            facts[side] = {
                "outcomes": outcomes(network, images, rows),
                "same": "".join(str(int(same)) for same in reference.argmax(1) == logits.argmax(1)),
                "kl": divergences(reference, logits).tolist(),
                "layers": layers,
                "training": training_of(report),
            }
    answer(facts)


def training_of(report: CompileReport) -> dict[str, Any] | None:
    """Returns what the record of the training says; None where there was none."""
    records = [record for records in report.history.values() for record in records if record.stage == "qat"]
    if not records:
        return None
    details = records[-1].details
    return {name: details[name] for name in ("before", "after", "chosen_epoch", "steps", "options")}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
