"""The independent executor that defines what a golden graph means: onnxruntime with every optimization off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]


def reference_outputs(data: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs the samples one by one, each as batch 1, and concatenates the outputs along dimension 0."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    runs = [
        session.run(names, {name: value[index : index + 1] for name, value in inputs.items()}) for index in range(count)
    ]
    return {name: np.concatenate([run[position] for run in runs]) for position, name in enumerate(names)}
