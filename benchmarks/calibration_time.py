"""Time and memory of calibrating ResNet-56: edgekit's quantization pass against NNCF's, on the same images.

    python -m benchmarks calibration_time --checkpoint resnet56-4bfd9763.th --data train [--record]

Each calibration runs in a fresh process; the two tools take turns, and each pair begins with the other one. Timed is
the quantization alone, from the float model in memory to the quantized model in memory, reading and decoding the images
included: edgekit's pass with its default recipe, ``nncf.quantize`` with its defaults. Threads are each tool's own
choice. A pair gives one ratio; the interval is Student's t over the logarithms of the pairs' ratios.

Memory: the largest resident set of a fresh process, for several numbers of images; of the pass alone and of the whole
``edgekit.compile``. Bound: 2,000 images take at most 32 MiB more than 100.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.cifar import CALIBRATION_IMAGES, add_inputs, describe_inputs
from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.record import add_output, cell, document, markdown_table, publish
from edgekit.config import to_dict

NAME = "calibration_time"
BOUND_MIB = 32.0
_MIB = 2**20
TOOLS = ("edgekit", "nncf")


def growth_mib(peaks: Mapping[str, list[int]]) -> float:
    """Returns how much more memory the most images took than the fewest, in MiB, each by its median process."""
    sizes = sorted(peaks, key=int)
    return (median(peaks[sizes[-1]]) - median(peaks[sizes[0]])) / _MIB


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    rows = [(tool, cell(results["seconds"][tool], ".2f")) for tool in TOOLS]
    rows.append(("edgekit / nncf", cell(results["ratio"], ".2f")))
    times = markdown_table((f"{settings['calibration_images']} images", "seconds [95 %]"), rows)
    sizes = [str(size) for size in settings["memory_images"]]
    memory = [
        (kind, *(f"{median(peaks[size]) / _MIB:.0f}" for size in sizes), f"{results['growth_mib'][kind]:+.1f}")
        for kind, peaks in results["peak_rss_bytes"].items()
    ]
    table = markdown_table(("peak memory in MiB", *(f"{size} images" for size in sizes), "growth"), memory)
    kept = "kept" if results["kept"] else "MISSED"
    return (
        f"{times}\n\n{table}\n\n{settings['processes']} pairs of fresh processes for the time, "
        f"{settings['memory_processes']} processes for each cell of the memory (median). "
        f"Bound: memory grows by at most {BOUND_MIB:.0f} MiB: {kept}."
    )


def measure(options: argparse.Namespace, work: str) -> dict[str, Any]:
    """Runs the benchmark."""
    given = {
        "checkpoint": str(options.checkpoint.absolute()),
        "data": str(options.data.absolute()),
        "seed": options.seed,
        "work": work,
    }
    seconds: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for pair in range(options.processes):
        for tool in TOOLS if pair % 2 == 0 else TOOLS[::-1]:
            facts = run_fresh("calibration_worker", {**given, "kind": tool, "samples": CALIBRATION_IMAGES})
            seconds[tool].append(facts["seconds"])
        print(f"pair {pair + 1}: " + ", ".join(f"{tool} {seconds[tool][-1]:.2f} s" for tool in TOOLS), flush=True)
    peaks: dict[str, dict[str, list[int]]] = {"pass": {}, "compile": {}}
    for kind, worker in (("pass", "edgekit"), ("compile", "compile")):
        for size in options.memory_images:
            runs = [
                run_fresh("calibration_worker", {**given, "kind": worker, "samples": size})
                for _ in range(options.memory_processes)
            ]
            peaks[kind][str(size)] = [run["peak_rss_bytes"] for run in runs]
            print(f"{kind}, {size} images: {median(peaks[kind][str(size)]) / _MIB:.0f} MiB", flush=True)
    growth = {kind: growth_mib(sizes) for kind, sizes in peaks.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["edgekit"], seconds["nncf"], strict=True)]
    return {
        "seconds": {tool: to_dict(process_mean_interval(values)) for tool, values in seconds.items()},
        "seconds_of_each_process": seconds,
        "ratio": to_dict(process_ratio_interval(ratios)),
        "peak_rss_bytes": peaks,
        "growth_mib": growth,
        "kept": max(growth.values()) <= BOUND_MIB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=False)
    parser.add_argument("--processes", type=int, default=5, help="pairs of fresh processes, at least two")
    parser.add_argument("--memory-images", type=int, nargs="+", default=[100, 300, 1000, 2000])
    parser.add_argument("--memory-processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="calibration seed of both tools")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    names = ("processes", "memory_images", "memory_processes", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"calibration_images": CALIBRATION_IMAGES, **describe_inputs(options)}
    with tempfile.TemporaryDirectory() as work:
        results = measure(options, work)
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
