"""The fresh process that shapes a network: ``python -m benchmarks.shaping_worker '<json>'``.

It compiles as a user does, with stages and for int8 alone, and answers what the report says. Accuracy is measured on
the test images, once, at the end: the best epoch is chosen on images that are held back from training, and no stage is
rolled back, whatever it costs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import edgekit
from benchmarks.cifar import CALIBRATION_IMAGES, MODELS, TASK
from benchmarks.fresh import answer
from edgekit.compiler.records import Accuracy
from edgekit.compiler.shaping import DistillStage, PruneStage, Stage
from edgekit.config import to_dict

__all__ = ["read_stage"]


def read_stage(table: Mapping[str, Any]) -> Stage:
    """Returns a stage from plain data, as a recipe file has it."""
    options = {name: value for name, value in table.items() if name != "do"}
    return PruneStage(**options) if table["do"] == "prune" else DistillStage(**options)


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    start = time.perf_counter()
    report = edgekit.compile(
        Path(task["checkpoint"]),
        arch="resnet_cifar:resnet56",
        arch_path=MODELS,
        task=TASK,
        data=task["data"],
        eval_data=task["test"],
        train_data=task["data"],
        student=task.get("student"),
        stages=[read_stage(table) for table in task["stages"]],
        output=task["output"],
        target="x86-cpu",
        precision="int8",
        samples=CALIBRATION_IMAGES,
        seed=task["seed"],
        max_eval=task["test_images"],
        max_drop=100.0,
        dynamic_batch=True,
    )
    seconds = time.perf_counter() - start
    last, (target,) = report.stages[-1], report.targets
    (candidate,) = [item for item in target.candidates if item.precision == "int8"]
    if report.float_accuracy is None or last.accuracy is None or candidate.accuracy is None:
        raise RuntimeError("there is no accuracy: the test images have no labels")
    answer(
        {
            "checkpoint": report.float_accuracy.value,
            "float": _accuracy(last.accuracy),
            "int8": _accuracy(candidate.accuracy),
            "images": last.accuracy.samples,
            "macs": last.macs,
            "parameters": last.parameters,
            "latency": to_dict(last.latency),
            "history": [record.summary for record in report.history["float"] if record.stage in ("prune", "distill")],
            "seconds": seconds,
        }
    )


def _accuracy(item: Accuracy) -> dict[str, Any]:
    return {"value": item.value, "drop": to_dict(item.drop)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
