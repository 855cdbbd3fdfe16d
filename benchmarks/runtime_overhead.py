"""What ``session.infer`` and ``model.infer`` add to a bare OpenVINO request, per call, on the same input.

    python -m benchmarks runtime_overhead [demo-out/digits.edge] [--record]      (digits writes that bundle)

Both sides run the same engine, compiled with the same options. The bare side is the least that can be done from Python:
a request whose input tensor was set once and whose outputs are views that the next call overwrites. A second bare side
is what OpenVINO's documentation shows, ``compiled(feeds)``.

The samples are interleaved in mirrored order. What a side adds is the median over the blocks of the difference of its
median and the bare side's in the same block; the interval is a percentile bootstrap over blocks. "bare again" is the
same call a second time: what it adds is the noise of the method. Bound: the upper end for ``model.infer`` is at most
30 us.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino._pyopenvino import CompiledModel, InferRequest

from benchmarks.record import add_output, cell, document, markdown_table, publish
from edgekit.bench.interleave import interleave
from edgekit.bench.statistics import Interval
from edgekit.config import to_dict
from edgekit.runtime import Model, load

NAME = "runtime_overhead"
BOUND_US = 30.0


def bare_request(model: Model) -> tuple[Any, InferRequest, openvino.Tensor]:
    """Compiles the bundle's engine again, without edgekit, and feeds it its first golden input."""
    entry, bundle = model.entry, model.bundle
    assert entry.engine is not None
    files = bundle.engine_files(entry.engine)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model=files["xml"], weights=files["bin"]), entry.options["device"], entry.options["properties"]
    )
    request = CompiledModel.create_infer_request(compiled)
    tensor = openvino.Tensor(golden_input(model), shared_memory=True)
    request.set_input_tensor(tensor)
    return compiled, request, tensor


def golden_input(model: Model) -> np.ndarray:
    (name,) = model.entry.golden.inputs.values()
    return model.bundle.array(name)[:1]


def paired_difference(a: np.ndarray, b: np.ndarray, *, seed: int, resamples: int = 5000) -> Interval:
    differences = a - b
    picks = np.random.default_rng(seed).integers(0, len(differences), (resamples, len(differences)))
    low, high = np.percentile(np.median(differences[picks], axis=1), (2.5, 97.5))
    return Interval(estimate=float(np.median(differences)), low=float(low), high=float(high))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results = result["results"]
    rows = [
        (name, f"{time:.2f}", cell(results["added_us"][name], "+.2f") if name in results["added_us"] else "")
        for name, time in results["median_us"].items()
    ]
    kept = "kept" if results["kept"] else "MISSED"
    return (
        f"{markdown_table(('call', 'median, us', 'adds, us [95 %]'), rows)}\n\n"
        f"{result['settings']['model']}, one process. "
        f"Bound: the upper end for model.infer is at most {BOUND_US:.0f} us: {kept}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("demo-out/digits.edge"))
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--calls", type=int, default=100, help="timed calls per visit, two visits a block")
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    with load(options.bundle) as model:
        compiled, request, tensor = bare_request(model)
        feeds = {model.session.inputs[0].name: golden_input(model)}
        calls: dict[str, Callable[[], object]] = {
            "bare": lambda: request.infer({}, True, False),
            "bare again": lambda: request.infer({}, True, False),
            "documented": lambda: compiled(feeds),
            "session.infer": lambda: model.session.infer(feeds),
            "model.infer": lambda: model.infer(feeds),
        }
        for call in calls.values():
            for _ in range(1000):
                call()
        samples = interleave(calls, blocks=options.blocks, per_visit=options.calls, seed=options.seed, settle=5)
        facts = model.session.describe()
        del tensor
    medians_us = {name: np.median(times, axis=1) / 1e3 for name, times in samples.items()}
    added = {
        name: to_dict(paired_difference(values, medians_us["bare"], seed=options.seed))
        for name, values in medians_us.items()
        if name != "bare"
    }
    results = {
        "engine": dict(facts),
        "median_us": {name: float(np.median(values)) for name, values in medians_us.items()},
        "added_us": added,
        "kept": added["model.infer"]["high"] <= BOUND_US,
    }
    settings = {"model": options.bundle.name, "blocks": options.blocks, "calls": options.calls, "seed": options.seed}
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
