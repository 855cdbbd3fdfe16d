"""The fresh process that times engines against each other: ``python -m benchmarks.engine_worker '<json>'``.

Every side is an OpenVINO IR, compiled with the same properties and called through a bare request whose input tensor was
set once. Nothing but OpenVINO, numpy and edgekit's harness is loaded.

The task says either how many ``blocks`` and ``calls`` per visit, or how many ``seconds`` each side gets; then the
calls follow from the slowest side's time, the same number for all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import openvino as ov
from openvino._pyopenvino import CompiledModel

from benchmarks.fresh import answer
from edgekit.bench import WarmUpRules, interleave, warm_up

__all__ = ["COMPUTE", "PROPERTIES", "compile_ir", "count_layers", "executed", "plan_calls"]

_PRECISIONS = {"u8": "int8", "i8": "int8", "f32": "fp32"}

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}

COMPUTE = ("Convolution", "Deconvolution", "FullyConnected")
"""Types of executed layers that do a network's multiplications."""


def compile_ir(path: Path, *, threads: int) -> CompiledModel:
    """Compiles an IR as every side of every comparison is."""
    core = ov.Core()
    return core.compile_model(core.read_model(path), "CPU", PROPERTIES | {"INFERENCE_NUM_THREADS": threads})


def executed(compiled: CompiledModel) -> list[tuple[str, str]]:
    """Returns the type and precision of everything that really runs, constants and results left out."""
    operations = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    kinds = [(_text(info["layerType"]), _text(info["runtimePrecision"])) for info in operations]
    return [
        (kind, _PRECISIONS.get(precision, precision))
        for kind, precision in kinds
        if kind not in ("Const", "Constant", "Input", "Output")
    ]


def count_layers(ran: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Counts the compute layers of what ran: type to precision to how many."""
    counted: dict[str, dict[str, int]] = {}
    for kind in COMPUTE:
        precisions = [precision for item, precision in ran if item == kind]
        if precisions:
            counted[kind] = {name: precisions.count(name) for name in sorted(set(precisions))}
    return counted


def plan_calls(call_s: Mapping[str, float], *, seconds: float, blocks: int) -> tuple[int, int]:
    """Returns blocks and calls per visit so that the slowest side gets about ``seconds``, two visits a block.

    Slow engines get fewer blocks, so that each visit still has two calls; never fewer than four blocks.
    """
    calls = seconds / max(call_s.values())
    blocks = max(4, min(blocks, int(calls / 4)))
    return blocks, max(2, round(calls / (2 * blocks)))


class Side:
    """One engine, ready to be called."""

    def __init__(self, path: Path, inputs: Mapping[str, np.ndarray], threads: int) -> None:
        self.compiled = compile_ir(path, threads=threads)
        raw = self.compiled.input(0).get_element_type() == ov.Type.u8
        self.tensor = ov.Tensor(inputs["image" if raw else "pixels"], shared_memory=True)
        self.request = CompiledModel.create_infer_request(self.compiled)
        self.request.set_input_tensor(self.tensor)

    def call(self) -> Callable[[], object]:
        """Returns the timed call."""
        return lambda: self.request.infer({}, True, False)

    def facts(self) -> dict[str, Any]:
        """Returns what really runs, and the properties in force."""
        ran = executed(self.compiled)
        layers = count_layers(ran)
        return {
            "convolutions": layers.get("Convolution", {}),
            "layers": layers,
            "nodes": len(ran),
            "properties": {
                name: _text(self.compiled.get_property(name))
                for name in (*PROPERTIES, "INFERENCE_NUM_THREADS", "NUM_STREAMS")
            },
        }


def _text(value: Any) -> str:
    if isinstance(value, ov.Type):
        return str(value.get_type_name())
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)


def main(task: dict[str, Any]) -> None:
    inputs = np.load(task["inputs"])
    sides = {name: Side(Path(path), inputs, task["threads"]) for name, path in task["sides"]}
    calls = {name: side.call() for name, side in sides.items()}
    rules = WarmUpRules(min_s=task["warm_up_s"], max_s=10 * task["warm_up_s"])
    stable = {name: warm_up(call, rules).stable for name, call in calls.items()}
    blocks, per_visit = task["blocks"], task.get("calls")
    if per_visit is None:
        taken = {name: _seconds(call) for name, call in calls.items()}
        blocks, per_visit = plan_calls(taken, seconds=task["seconds"], blocks=blocks)
    samples = interleave(calls, blocks=blocks, per_visit=per_visit, seed=task["seed"], settle=task["settle"])
    answer(
        {
            "median_us": {name: float(np.median(times)) / 1e3 for name, times in samples.items()},
            "block_medians_us": {name: (np.median(times, axis=1) / 1e3).tolist() for name, times in samples.items()},
            "calls": 2 * blocks * per_visit,
            "stable": stable,
            "facts": {name: side.facts() for name, side in sides.items()},
        }
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
