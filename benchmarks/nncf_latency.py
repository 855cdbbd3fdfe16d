"""Engine time of ResNet-56 in int8: edgekit's against NNCF's, of the same torch module, on the same machine.

    python -m benchmarks nncf_latency --checkpoint resnet56-4bfd9763.th --data train --test test [--record]

Both calibrate on the same 300 images and run in the same OpenVINO with the same properties (INFERENCE_PRECISION_HINT
f32, PERFORMANCE_HINT LATENCY, the threads stated). Both are called through a bare OpenVINO request, so neither side's
Python is in the time. NNCF has two presets; in each process the faster one counts.

The jobs are not equal in the first comparison: edgekit's engine takes the raw uint8 BGR image and normalizes inside,
NNCF's takes float NCHW that was normalized outside the clock. The second comparison makes them equal: NNCF's model with
OpenVINO's PrePostProcessor in front. The float engine is that of ``ov.convert_model``, and takes float NCHW too.

Each process opens all sides and times them in blocks, in random mirrored order. Of two copies of one engine in one
process, the one that was opened first runs a little faster, so every order of opening is followed by its mirror image
in the next process: that cancels in the mean over processes. A process gives one ratio: the median over its blocks of
the ratio of medians. The interval is Student's t over the logarithms of the processes' ratios. "edgekit again" is a
second copy of edgekit's engine: the noise of the method. Bound, for each number of threads: the interval against the
faster preset reaches 1.00 or below. An interval wider than 5 % proves nothing and counts as inconclusive.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmarks.cifar import (
    CALIBRATION_IMAGES,
    add_inputs,
    compile_checkpoint,
    describe_inputs,
    float_pixels,
    read_images,
    read_spec,
)
from benchmarks.engine_worker import PROPERTIES
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.record import add_output, cell, document, interval_text, markdown_table, publish
from benchmarks.sides import opening_order, process_ratios
from edgekit.bundle import read_bundle
from edgekit.config import to_dict
from edgekit.data import read_frame
from edgekit.evaluate import evaluate
from edgekit.progress import progress_for

NAME = "nncf_latency"
BOUND_RATIO = 1.0
WIDEST = 1.05
OURS, AGAIN, FLOAT = "edgekit", "edgekit again", "float"
# Name of the comparison to the sides of which the fastest in each process counts.
RIVALS: Mapping[str, tuple[str, ...]] = {
    "nncf": ("nncf-performance", "nncf-mixed"),
    "nncf, uint8 in": ("nncf-performance-uint8", "nncf-mixed-uint8"),
    "float": (FLOAT,),
    AGAIN: (AGAIN,),
}


def summarize_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Aggregates the processes of one number of threads."""
    names = list(runs[0]["median_us"])
    comparisons = {**RIVALS, **{name: (name,) for name in names if name not in (OURS, AGAIN, FLOAT)}}
    ratios = {name: process_ratios(runs, OURS, rivals) for name, rivals in comparisons.items()}
    return {
        "time_us": {name: to_dict(process_mean_interval([run["median_us"][name] for run in runs])) for name in names},
        "ratio": {name: to_dict(process_ratio_interval(values)) for name, values in ratios.items()},
        "ratio_of_each_process": ratios,
        "unstable_warm_ups": [sorted(name for name, stable in run["stable"].items() if not stable) for run in runs],
        "facts": runs[0]["facts"],
    }


def verdict(ratios: Sequence[Mapping[str, float]]) -> str:
    """Says whether the bound was kept: ``kept``, ``MISSED``, or ``inconclusive`` where noise made an interval wide."""
    if any(ratio["low"] > BOUND_RATIO for ratio in ratios):
        return "MISSED"
    return "inconclusive" if any(ratio["high"] > WIDEST * ratio["low"] for ratio in ratios) else "kept"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    blocks = []
    for threads, summary in results["threads"].items():
        rows = []
        for name, time in summary["time_us"].items():
            convolutions = summary["facts"][name]["convolutions"]
            ratio = "" if name == OURS else cell(summary["ratio"][name], ".3f")
            accuracy = results["top1"].get(name)
            rows.append(
                (
                    name,
                    "" if accuracy is None else f"{100 * accuracy:.2f} %",
                    ", ".join(f"{count} {precision}" for precision, count in convolutions.items()),
                    cell(time, ".1f"),
                    ratio,
                )
            )
        head = (
            f"{threads} thread{'s' if threads != '1' else ''}",
            "top-1",
            "convolutions",
            "us [95 %]",
            "edgekit / it",
        )
        comparisons = [
            f"edgekit / faster NNCF preset, {what}: **{cell(summary['ratio'][name], '.3f')}**"
            for name, what in (("nncf", "normalized float in"), ("nncf, uint8 in", "uint8 in, the same job"))
        ]
        blocks.append(f"{markdown_table(head, rows)}\n\n" + "; ".join(comparisons) + ".")
    blocks.append(
        f"{settings['processes']} fresh processes for each number of threads. Bound: the interval of edgekit / faster "
        f"NNCF preset reaches {BOUND_RATIO:.2f} or below: {results['verdict']}. A/A control (edgekit / edgekit again): "
        + ", ".join(
            f"{interval_text(summary['ratio'][AGAIN], '.3f')} with {threads}"
            for threads, summary in results["threads"].items()
        )
        + "."
    )
    return "\n\n".join(blocks)


def prepare(options: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Builds every side and writes the inputs; returns name to IR."""
    bundle_path = work / "edgekit.edge"
    compile_checkpoint(
        options.checkpoint, options.data, bundle_path, precision="int8", seed=options.seed, samples=CALIBRATION_IMAGES
    )
    bundle = read_bundle(bundle_path)
    (entry,) = bundle.manifest.entries
    if entry.engine is None or {name: entry.options["properties"].get(name) for name in PROPERTIES} != PROPERTIES:
        raise RuntimeError(f"the bundle's engine is not meant for the properties of this benchmark: {entry.options}")
    for role, content in bundle.engine_files(entry.engine).items():
        (work / f"edgekit.{role}").write_bytes(content)
    built = run_fresh(
        "nncf_build",
        {
            "checkpoint": str(options.checkpoint.absolute()),
            "data": str(options.data.absolute()),
            "work": str(work),
            "samples": CALIBRATION_IMAGES,
            "seed": options.seed,
        },
    )
    image = read_frame(read_images(options.test).samples[0].path, read_spec().input)
    np.savez(work / "inputs.npz", image=np.ascontiguousarray(image[np.newaxis]), pixels=float_pixels(image))
    ours = work / "edgekit.xml"
    return {OURS: ours, AGAIN: ours, **{name: work / f"{name}.xml" for name in built["models"]}}


def top1(path: Path, test: Path) -> float:
    """Returns a side's accuracy on the test images."""
    compiled = ov.Core().compile_model(path, "CPU", PROPERTIES)
    raw = compiled.input(0).get_element_type() == ov.Type.u8

    def infer(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        fed = feeds["image"] if raw else float_pixels(feeds["image"][0])
        return {"output": compiled([fed])[0]}

    return evaluate(infer, read_spec(), read_images(test), progress=progress_for(quiet=False)).value


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the benchmark."""
    sides = prepare(options, work)
    accuracies = {name: top1(path, options.test) for name, path in sides.items() if name != AGAIN}
    runs: dict[int, list[dict[str, Any]]] = {threads: [] for threads in options.threads}
    for process in range(options.processes):
        for threads in options.threads if process % 2 == 0 else options.threads[::-1]:
            task = {
                "sides": [(name, str(sides[name])) for name in opening_order(list(sides), process)],
                "inputs": str(work / "inputs.npz"),
                "threads": threads,
                "blocks": options.blocks,
                "calls": options.calls,
                "settle": options.settle,
                "warm_up_s": options.warm_up,
                "seed": process,
            }
            run = run_fresh("engine_worker", task)
            runs[threads].append(run)
            ratio = process_ratios([run], OURS, RIVALS["nncf"])[0]
            print(f"process {process + 1}, {threads} threads: edgekit / faster preset {ratio:.3f}", flush=True)
    summaries = {str(threads): summarize_runs(items) for threads, items in runs.items()}
    return {
        "top1": accuracies,
        "threads": summaries,
        "ratio_method": "geometric mean over processes, Student's t interval of the logarithms",
        "verdict": verdict([summary["ratio"]["nncf"] for summary in summaries.values()]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=True)
    parser.add_argument("--processes", type=int, default=10, help="fresh processes for each number of threads; even")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blocks", type=int, default=20, help="blocks in each process")
    parser.add_argument("--calls", type=int, default=40, help="timed calls per visit, two visits a block")
    parser.add_argument("--settle", type=int, default=5, help="untimed calls at the start of a visit")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds of warm-up for each side, at least")
    parser.add_argument("--seed", type=int, default=0, help="calibration seed of both tools")
    add_output(parser, NAME)
    options = parser.parse_args()
    require_exact_products()
    if options.processes < 2 or options.processes % 2:
        parser.error(f"--processes: expected an even number, got {options.processes}: orders of opening come in pairs")
    load_average = os.getloadavg()[0]
    names = ("processes", "threads", "blocks", "calls", "settle", "warm_up", "seed")
    settings = {name: getattr(options, name) for name in names} | {"properties": PROPERTIES}
    settings |= {"calibration_images": CALIBRATION_IMAGES, **describe_inputs(options)}
    with tempfile.TemporaryDirectory() as work:
        results = measure(options, Path(work))
    result = document(NAME, settings=json.loads(json.dumps(settings)), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["verdict"] == "kept" else 1


if __name__ == "__main__":
    sys.exit(main())
