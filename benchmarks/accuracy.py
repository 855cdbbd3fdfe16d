"""What int8 costs in accuracy: ResNet-56 on CIFAR-10, over calibration seeds.

    python -m benchmarks accuracy --checkpoint resnet56-4bfd9763.th --data train --test test [--record]

For each seed the checkpoint is compiled for x86-cpu as a user does it (``edgekit.compile``, the default recipe, 300
training images chosen by the seed), and the engine that the bundle ships is evaluated on all test images. The
reference is the network in torch, with preprocessing written out here; the float engine stands beside it.

Each seed's drop has its paired 95 % interval (Agresti and Min). The mean drop over the seeds is paired image by image:
reference minus the mean over the seeds, with a percentile bootstrap over the images. Bound: 0.3 points on the mean.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cifar import (
    CALIBRATION_IMAGES,
    add_inputs,
    compile_checkpoint,
    describe_inputs,
    float_module,
    float_pixels,
    read_images,
    read_spec,
)
from benchmarks.intervals import mean_drop_interval
from benchmarks.record import add_output, cell, document, markdown_table, publish
from edgekit.bench.statistics import Interval, paired_interval
from edgekit.config import to_dict
from edgekit.evaluate import evaluate
from edgekit.progress import progress_for
from edgekit.runtime import load
from edgekit.tasks import MetricReport

NAME = "accuracy"
BOUND_POINTS = 0.3


def torch_report(checkpoint: Path, test: Path) -> MetricReport:
    """Evaluates the network in torch."""
    module = float_module(checkpoint)
    threads = torch.get_num_threads()

    def infer(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {"output": module(torch.from_numpy(float_pixels(feeds["image"][0]))).numpy()}

    # For one small image at a time, handing work to a second thread takes longer than the work.
    torch.set_num_threads(1)
    try:
        return evaluate(infer, read_spec(), read_images(test), progress=progress_for(quiet=False))
    finally:
        torch.set_num_threads(threads)


def engine_report(bundle: Path, test: Path) -> tuple[MetricReport, dict[str, Any]]:
    """Evaluates what a bundle ships; also returns its precision, and what its layers ran as."""
    with load(bundle) as model:
        report = evaluate(model.session.infer, read_spec(), read_images(test), progress=progress_for(quiet=False))
        layers = model.session.layers()
        facts = {
            "precision": model.entry.precision,
            "content_digest": model.bundle.manifest.content_digest,
            "bundle_bytes": model.bundle.size_bytes,
            "convolutions": dict(Counter(layer.precision for layer in layers if layer.kind == "Convolution")),
            "compute_layers": dict(Counter(layer.precision for layer in layers if layer.compute)),
        }
    return report, facts


def in_points(interval: Interval) -> dict[str, float]:
    """Returns an interval of a fraction in percentage points."""
    plain: dict[str, float] = to_dict(interval)
    return {name: value if name == "level" else 100 * value for name, value in plain.items()}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    rows = [
        ("torch, float32", f"{100 * results['torch']['top1']:.2f} %", "", ""),
        (
            "edgekit, float32 engine",
            f"{100 * results['float_engine']['top1']:.2f} %",
            cell(results["float_engine"]["drop"], ".2f"),
            "",
        ),
    ]
    for item in results["seeds"]:
        count = sum(item["convolutions"].values())
        rows.append(
            (
                f"edgekit, {item['precision']} engine, calibration seed {item['seed']}",
                f"{100 * item['top1']:.2f} %",
                cell(item["drop"], ".2f"),
                f"{item['convolutions'].get('int8', 0)} of {count}",
            )
        )
    mean = 100 * sum(item["top1"] for item in results["seeds"]) / len(results["seeds"])
    rows.append((f"mean of {len(results['seeds'])} seeds", f"{mean:.2f} %", cell(results["mean_drop"], ".2f"), ""))
    table = markdown_table(("ResNet-56", "top-1", "drop in points [95 %]", "convolutions run in int8"), rows)
    kept = "kept" if results["kept"] else "MISSED"
    return (
        f"{table}\n\n{settings['test_images']} test images, {settings['calibration_images']} calibration images. "
        f"Bound: a mean drop of at most {BOUND_POINTS} points, and every convolution executed in int8: {kept}."
    )


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the benchmark."""
    reference = torch_report(options.checkpoint, options.test)
    seeds, outcomes = [], []
    compile_checkpoint(options.checkpoint, options.data, work / "float.edge", precision="fp32", seed=0)
    floating, float_facts = engine_report(work / "float.edge", options.test)
    for seed in options.seeds:
        bundle = work / f"int8-{seed}.edge"
        compile_checkpoint(options.checkpoint, options.data, bundle, precision="int8", seed=seed)
        report, facts = engine_report(bundle, options.test)
        drop = in_points(paired_interval(reference.per_sample, report.per_sample))
        seeds.append({"seed": seed, "top1": report.value, "drop": drop, "skipped": len(report.skipped), **facts})
        outcomes.append(report.per_sample)
        print(f"seed {seed}: top-1 {100 * report.value:.2f} %, drop {cell(drop, '.2f')}", flush=True)
    mean = in_points(mean_drop_interval(reference.per_sample, outcomes, seed=0))
    return {
        "torch": {"top1": reference.value},
        "float_engine": {
            "top1": floating.value,
            "drop": in_points(paired_interval(reference.per_sample, floating.per_sample)),
            **float_facts,
        },
        "seeds": seeds,
        "mean_drop": mean,
        "mean_drop_method": "percentile bootstrap over images of reference minus mean over seeds, 20000 resamples",
        "kept": mean["estimate"] <= BOUND_POINTS and all(set(item["convolutions"]) == {"int8"} for item in seeds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="calibration seeds")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    settings = {"seeds": options.seeds, "calibration_images": CALIBRATION_IMAGES, **describe_inputs(options)}
    with tempfile.TemporaryDirectory() as work:
        results = measure(options, Path(work))
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
