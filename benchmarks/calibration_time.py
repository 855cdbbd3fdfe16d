"""Time and memory of int8 calibration: edgekit's quantization against NNCF's, on the same pictures and networks.

    python -m benchmarks calibration_time [--networks resnet50 vit_tiny] [--record]

The networks have seeded random weights and settled batch norms (``zoo/``), the pictures are generated and lie as PNG
files in ``--work``: nothing has to be downloaded. Each calibration runs in a fresh process; the two tools take turns,
and each pair begins with the other one. Timed is the quantization alone, from the float model in memory to the
quantized model in memory, reading and decoding the images included: all that edgekit's default recipe does,
``nncf.quantize`` with its defaults (for a transformer with ``model_type=TRANSFORMER``). Threads are each tool's own
choice. A pair gives one ratio; the table has the median time of each tool, and for the ratio Student's t interval over
the logarithms of the pairs' ratios.

Memory: the largest resident set of a fresh process, for several numbers of images; of the quantization of both tools,
and of the whole ``edgekit.compile``. Bounds: on no network is edgekit's median time above NNCF's, and the most images
take at most 32 MiB more than the fewest, in edgekit's quantization and in ``edgekit.compile``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_ratio_interval
from benchmarks.record import add_output, cell, document, markdown_table, publish
from benchmarks.zoo.networks import NETWORKS
from benchmarks.zoo.pictures import write_pictures
from edgekit.config import to_dict

NAME = "calibration_time"
BOUND_MIB = 32.0
_MIB = 2**20
TOOLS = ("edgekit", "nncf")
FOUR = ("resnet50", "mobilenetv2", "efficientnet_lite0", "vit_tiny")
PICTURES_SEED = 4


def growth_mib(peaks: Mapping[str, list[int]]) -> float:
    """Returns how much more memory the most images took than the fewest, in MiB, each by its median process."""
    sizes = sorted(peaks, key=int)
    return (median(peaks[sizes[-1]]) - median(peaks[sizes[0]])) / _MIB


def findings(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what is outside of the bounds, in words; nothing where all hold."""
    found = []
    for name, item in networks.items():
        ours, theirs = (median(item["seconds"][tool]) for tool in TOOLS)
        if ours > theirs:
            found.append(f"{name}: {ours:.1f} s, NNCF {theirs:.1f} s")
        for kind in ("edgekit", "compile"):
            if kind in item["peak_rss_bytes"]:
                growth = growth_mib(item["peak_rss_bytes"][kind])
                if growth > BOUND_MIB:
                    found.append(f"{name}: memory of {kind} grows by {growth:.0f} MiB")
    return found


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    times, memory = [], []
    sizes = [str(size) for size in settings["memory_images"]]
    for name, item in results["networks"].items():
        seconds = [f"{median(item['seconds'][tool]):.1f}" for tool in TOOLS]
        times.append((name, *seconds, cell(item["ratio"], ".2f")))
        for kind, peaks in item["peak_rss_bytes"].items():
            values = [f"{median(peaks[size]) / _MIB:.0f}" for size in sizes]
            memory.append((f"{name}, {kind}", *values, f"{growth_mib(peaks):+.1f}"))
    head = (f"{settings['images']} images", "edgekit, s", "NNCF, s", "edgekit / NNCF [95 %]")
    blocks = [markdown_table(head, times)]
    if memory:
        blocks.append(markdown_table(("peak memory in MiB", *(f"{size} images" for size in sizes), "growth"), memory))
    found = results["findings"]
    verdict = "kept" if not found else "MISSED: " + "; ".join(found)
    blocks.append(
        f"{settings['processes']} pairs of fresh processes for each time, {settings['memory_processes']} for each cell "
        f"of the memory (median). Bounds: edgekit's median time at most NNCF's on each network; its memory grows by at "
        f"most {BOUND_MIB:.0f} MiB: {verdict}."
    )
    return "\n\n".join(blocks)


def measure_time(name: str, given: Mapping[str, Any], options: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the seconds of each process of both tools, pair by pair."""
    seconds: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for pair in range(options.processes):
        for tool in TOOLS if pair % 2 == 0 else TOOLS[::-1]:
            facts = run_fresh("calibration_worker", {**given, "kind": tool, "samples": options.images})
            seconds[tool].append(facts["seconds"])
        told = ", ".join(f"{tool} {seconds[tool][-1]:.2f} s" for tool in TOOLS)
        print(f"{name}, pair {pair + 1}: {told}", flush=True)
    return seconds


def measure_memory(name: str, given: Mapping[str, Any], options: argparse.Namespace) -> dict[str, dict[str, list[int]]]:
    """Returns the peak memory of each process, by what ran and the number of images."""
    peaks: dict[str, dict[str, list[int]]] = {}
    for kind in options.memory_of:
        peaks[kind] = {}
        for size in options.memory_images:
            runs = [
                run_fresh("calibration_worker", {**given, "kind": kind, "samples": size})
                for _ in range(options.memory_processes)
            ]
            peaks[kind][str(size)] = [run["peak_rss_bytes"] for run in runs]
            print(f"{name}, {kind}, {size} images: {median(peaks[kind][str(size)]) / _MIB:.0f} MiB", flush=True)
    return peaks


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the benchmark: all times first, then memory, which a busy machine does not change."""
    networks: dict[str, Any] = {}
    tasks: dict[str, dict[str, Any]] = {}
    for name in options.networks:
        size = NETWORKS[name].size
        data = options.work / f"pictures-{size[0]}x{size[1]}"
        write_pictures(data, max(options.images, *options.memory_images), size, seed=PICTURES_SEED)
        tasks[name] = {"network": name, "data": str(data.absolute()), "seed": options.seed, "work": str(work)}
    for name, given in tasks.items():
        seconds = measure_time(name, given, options)
        ratios = [ours / theirs for ours, theirs in zip(seconds["edgekit"], seconds["nncf"], strict=True)]
        networks[name] = {"seconds": seconds, "ratio": to_dict(process_ratio_interval(ratios))}
    for name, given in tasks.items():
        networks[name]["peak_rss_bytes"] = measure_memory(name, given, options)
    return {"networks": networks, "findings": findings(networks)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(FOUR), metavar="NAME")
    parser.add_argument("--images", type=int, default=300, help="calibration images of the timed runs")
    parser.add_argument("--processes", type=int, default=5, help="pairs of fresh processes, at least two")
    parser.add_argument("--memory-images", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--memory-processes", type=int, default=1)
    parser.add_argument(
        "--memory-of", nargs="*", choices=["edgekit", "nncf", "compile"], default=["edgekit", "nncf", "compile"]
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images, for both tools")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "edgekit-pictures", help="where the pictures lie"
    )
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    names = ("networks", "images", "processes", "memory_images", "memory_processes", "memory_of", "seed")
    settings = {name: getattr(options, name) for name in names}
    with tempfile.TemporaryDirectory() as work:
        results = measure(options, Path(work))
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if not results["findings"] else 1


if __name__ == "__main__":
    sys.exit(main())
