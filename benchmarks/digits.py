"""The digits example: int8 against float, accuracy on the test images and engine time.

    python -m benchmarks digits [--work demo-out] [--record]

Compiles the committed checkpoint twice, as the compiler chooses and forced to float, evaluates both on the 600 test
images, and times the two engines in turns within one process (``edgekit.bench.compare``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import edgekit
from benchmarks.record import add_output, cell, document, markdown_table, publish
from edgekit.bench import BenchOptions, Comparison, compare, paired_interval
from edgekit.evaluate import evaluate
from edgekit.runtime import load
from edgekit.tasks import MetricReport, get_task
from examples.digits.prepare import write_images

NAME = "digits"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"


def compile_digits(images: Path, output: Path, precision: Literal["auto", "fp32"]) -> None:
    """Compiles the example as its demo does."""
    edgekit.compile(
        EXAMPLE / "digits.pt",
        arch="model:digits_resnet",
        arch_path=EXAMPLE,
        task=EXAMPLE / "digits.toml",
        data=images / "calib",
        eval_data=images / "val",
        precision=precision,
        output=output,
    )


def accuracy(bundle: Path, test: Path) -> tuple[MetricReport, str]:
    """Returns a bundle's accuracy and the precision that it ships."""
    with load(bundle) as model:
        assert model.spec is not None
        dataset = get_task(model.spec.task).read_data(test, model.spec)
        return evaluate(model.session.infer, model.spec, dataset), model.entry.precision


def timing(comparison: Comparison) -> dict[str, Any]:
    """Returns the comparison as plain data, without the paths of the bundles."""
    plain: dict[str, Any] = comparison.to_dict()
    for side in ("side", "baseline"):
        plain[side].pop("path")
    return plain


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results = result["results"]
    time, drop = results["time"], results["drop"]
    rows = [
        (
            f"{item['precision']}{note}",
            f"{100 * item['top1']:.2f} %",
            f"{1000 * time[latency]['p50_ms']:.1f}",
            f"{time[side]['size_bytes'] / 1024:.0f}",
        )
        for item, note, latency, side in (
            (results["shipped"], ", what the compiler ships", "latency", "side"),
            (results["float"], "", "baseline_latency", "baseline"),
        )
    ]
    table = markdown_table(("digits", "top-1", "engine p50, us", "bundle, KiB"), rows)
    return (
        f"{table}\n\n{results['samples']} test images; drop {cell(drop, '.2f')} points. "
        f"Time of {results['shipped']['precision']} over {results['float']['precision']}: "
        f"{cell(time['ratio'], '.3f')}, "
        f"{time['blocks']} blocks in one process."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("demo-out"), help="where images and bundles go")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of timing")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    options.work.mkdir(parents=True, exist_ok=True)
    images = options.work / "images"
    write_images(images)
    shipped, floating = options.work / "digits.edge", options.work / "digits-fp32.edge"
    compile_digits(images, shipped, "auto")
    compile_digits(images, floating, "fp32")
    report, precision = accuracy(shipped, images / "test")
    reference, float_precision = accuracy(floating, images / "test")
    drop = paired_interval(reference.per_sample, report.per_sample)
    results = {
        "samples": report.samples,
        "shipped": {"precision": precision, "top1": report.value},
        "float": {"precision": float_precision, "top1": reference.value},
        "drop": {"estimate": 100 * drop.estimate, "low": 100 * drop.low, "high": 100 * drop.high, "level": drop.level},
        "time": timing(compare(shipped, floating, BenchOptions(duration_s=options.duration))),
    }
    settings = {"duration_s": options.duration}
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
