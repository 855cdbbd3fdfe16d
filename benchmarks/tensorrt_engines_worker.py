"""The fresh process of one network: ``python -m benchmarks.tensorrt_engines_worker '<json>'``.

Makes the graphs that an NVIDIA target gets, holds them against the rules of its TensorRT release and against ONNX
Runtime, and builds each with TensorRT-RTX.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from benchmarks.fresh import answer
from benchmarks.portable_graphs import checked, programs
from benchmarks.zoo.networks import NETWORKS, make
from benchmarks.zoo.pictures import normalized, pictures
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.progress import SilentProgress
from edgekit.targets import load_target

CALIBRATION_SEED, CHECKED_SEED = 2, 5


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(task["threads"])
    target, size = load_target(task["target"]), NETWORKS[task["network"]].size
    images = normalized(pictures(task["images"], size, seed=CALIBRATION_SEED))
    loaded = load_program(make(task["network"]), task=None, example_inputs=(images[:1],))
    floating = run_passes(loaded, [FoldBatchNorm()], PassContext(progress=SilentProgress()))
    compared = normalized(pictures(task["checked"], size, seed=CHECKED_SEED))
    answer({"precisions": checked(programs(floating, target, images), floating, target, compared)})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
