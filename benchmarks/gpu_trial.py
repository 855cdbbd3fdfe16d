"""The fresh process that tries a library on this GPU: ``python -m benchmarks.gpu_trial '<json>'``."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.fresh import answer
from edgekit.errors import EdgekitError
from edgekit.runtime.sessions import open_session
from edgekit.runtime.tensorrt import FLAVOURS, Flavour
from edgekit.runtime.tensorrt.building import build_plan
from edgekit.tensorspec import TensorSpec

__all__ = ["attempt"]

_SHAPE = (1, 3, 8, 8)
_OPTIONS = {
    "workspace_mib": 64,
    "builder_optimization_level": None,
    "profiling_verbosity": "detailed",
    "compute_capabilities": (),
    "batch": (1, 1, 1),
}


def attempt(flavour: Flavour) -> str:
    """Builds, opens and runs a tiny engine.

    Returns:
        Why that fails; empty where the engine answers rightly.
    """
    built = build_plan(flavour, _graph(), _OPTIONS)
    if built.plan is None:
        return f"{built.builder} builds no engine: {built.reason}"
    x, y = (TensorSpec(name=name, dtype="float32", shape=_SHAPE) for name in ("x", "y"))
    given = np.linspace(-1, 1, int(np.prod(_SHAPE)), dtype=np.float32).reshape(_SHAPE)
    options = {"batch": [1, 1, 1], "builder": built.builder}
    try:
        with open_session(flavour.engine_kind, {"plan": built.plan}, options, (x,), (y,), trusted=True) as session:
            answered = session.infer({"x": given})["y"]
    except EdgekitError as error:
        return error.message
    return "" if np.allclose(answered, np.maximum(given, 0), atol=1e-3) else "its engine answers wrongly: ReLU"


def _graph() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _SHAPE) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "trial", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def main(task: dict[str, Any]) -> None:
    answer({"refused": attempt(FLAVOURS[task["flavour"]])})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
