"""Is a network as fast as ``--prune latency=`` was asked for: two trained networks, timed anew when they are finished.

    python -m benchmarks clock --checkpoint resnet56-4bfd9763.th --data train [--record]

ResNet-56 (residual) and the small MobileNet (depthwise) of ``accuracy`` are compiled to int8, as they are and with
``--prune latency=0.6``, without any training: accuracy is not looked at, and the time does not depend on it. The
compilation times networks on the way; here the finished engines of both bundles are opened in fresh processes, called
in turn, and compared as in ``nncf_latency``.

Bound: the time is within 5 % of the share that was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import edgekit
from benchmarks.cifar import CALIBRATION_IMAGES, add_inputs, describe_inputs, read_images, read_spec
from benchmarks.engine_worker import PROPERTIES
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.record import add_output, cell, document, markdown_table, publish
from benchmarks.sides import opening_order, process_ratios
from benchmarks.trained import NETWORKS
from edgekit.bundle import read_bundle
from edgekit.compiler.shaping import PruneStage
from edgekit.config import to_dict
from edgekit.data import read_frame

NAME = "clock"
ASKED = 0.6
_CLOSE = 0.05
_NAMES = ("resnet56", "mobilenet_small")
_GIVEN, _AGAIN, _PRUNED = "given", "given again", "pruned"


def findings(networks: Mapping[str, Mapping[str, Any]], asked: float) -> list[str]:
    """Returns the bounds that are missed, each as a sentence."""
    ratios = {name: item["ratio"][_PRUNED]["estimate"] for name, item in networks.items()}
    return [
        f"{name}: {ratio:.3f} of the time, asked for {asked:.2f}"
        for name, ratio in ratios.items()
        if abs(ratio / asked - 1) > _CLOSE
    ]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    networks, settings = result["results"]["networks"], result["settings"]
    rows = [
        (
            NETWORKS[name].title,
            f"{item['macs_left']:.3f}",
            f"{item['blocks']}",
            f"{item['widths']}",
            cell(item["time_us"][_GIVEN], ".0f"),
            cell(item["time_us"][_PRUNED], ".0f"),
            cell(item["ratio"][_PRUNED], ".3f"),
            f"{item['engines']}",
            f"{item['seconds']:.0f}",
        )
        for name, item in networks.items()
    ]
    heads = (
        "network",
        "MACs left",
        "blocks removed",
        "widths narrowed",
        "us, given",
        "us, pruned",
        f"time left, asked {settings['asked']:.2f}",
        "engines timed whole",
        "s, all of the compilation",
    )
    found = result["results"]["findings"]
    control = ", ".join(cell(item["ratio"][_AGAIN], ".3f") for item in networks.values())
    return (
        f"{markdown_table(heads, rows)}\n\n{settings['processes']} fresh processes, {settings['threads']} threads. A/A "
        f"control (the given engine again / the given engine): {control}. Bound, within 5 %: "
        + ("kept." if not found else f"MISSED: {'; '.join(found)}.")
    )


def compiled(name: str, options: argparse.Namespace, work: Path, *, pruned: bool) -> tuple[Path, dict[str, Any]]:
    """Compiles a network; returns the engine's IR and what pruning did."""
    network, side = NETWORKS[name], _PRUNED if pruned else _GIVEN
    report = edgekit.compile(
        network.checkpoint or options.checkpoint,
        arch=network.arch,
        arch_path=network.arch_path,
        task=network.task,
        data=options.data,
        target="x86-cpu",
        stages=(PruneStage(latency=options.asked),) if pruned else (),
        precision="int8",
        samples=CALIBRATION_IMAGES,
        max_eval=500,
        max_drop=100.0,
        threads=options.threads,
        timing=False,
        output=work / f"{name} {side}.edge",
    )
    bundle = read_bundle(report.output)
    (entry,) = bundle.manifest.entries
    if entry.engine is None or {key: entry.options["properties"].get(key) for key in PROPERTIES} != PROPERTIES:
        raise RuntimeError(f"{name}: the engine is not meant for the properties of this benchmark: {entry.options}")
    for role, content in bundle.engine_files(entry.engine).items():
        (work / f"{name} {side}.{role}").write_bytes(content)
    facts: dict[str, Any] = {}
    for record in report.history["float"]:
        if record.stage == "prune":
            facts = {
                "macs_left": record.details["macs_left"],
                "blocks": len(record.details["removed"]),
                "widths": sum(item["before"] != item["after"] for item in record.details["widths"]),
                "engines": len(record.details["trials"]),
                "trials": record.details["trials"],
            }
    return work / f"{name} {side}.xml", facts


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the benchmark."""
    networks: dict[str, Any] = {}
    image = read_frame(read_images(options.data).samples[0].path, read_spec().input)
    np.savez(work / "inputs.npz", image=np.ascontiguousarray(image[np.newaxis]), pixels=np.zeros(1, np.float32))
    for name in _NAMES:
        given, _ = compiled(name, options, work, pruned=False)
        start = perf_counter()
        pruned, facts = compiled(name, options, work, pruned=True)
        seconds = perf_counter() - start
        sides = {_GIVEN: given, _AGAIN: given, _PRUNED: pruned}
        runs = [
            run_fresh(
                "engine_worker",
                {
                    "sides": [(side, str(sides[side])) for side in opening_order(list(sides), process)],
                    "inputs": str(work / "inputs.npz"),
                    "threads": options.threads,
                    "blocks": 20,
                    "seconds": 1.5,
                    "settle": 5,
                    "warm_up_s": 0.3,
                    "seed": process,
                },
            )
            for process in range(options.processes)
        ]
        networks[name] = {
            **facts,
            "seconds": seconds,
            "time_us": {
                side: to_dict(process_mean_interval([run["median_us"][side] for run in runs])) for side in sides
            },
            "ratio": {
                side: to_dict(process_ratio_interval(process_ratios(runs, side, [_GIVEN])))
                for side in (_AGAIN, _PRUNED)
            },
        }
        print(f"{name}: {networks[name]['ratio'][_PRUNED]['estimate']:.3f} of the time", flush=True)
    return {"networks": networks, "findings": findings(networks, options.asked)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=False)
    parser.add_argument("--asked", type=float, default=ASKED, help="share of the time to keep")
    parser.add_argument("--threads", type=int, default=2, help="of the engines")
    parser.add_argument("--processes", type=int, default=6, help="fresh processes for each network; even")
    add_output(parser, NAME)
    options = parser.parse_args()
    require_exact_products()
    if options.processes < 2 or options.processes % 2:
        parser.error(f"--processes: expected an even number, got {options.processes}: orders of opening come in pairs")
    load_average = os.getloadavg()[0]
    settings = {name: getattr(options, name) for name in ("asked", "threads", "processes")}
    settings |= {"properties": PROPERTIES, "calibration_images": CALIBRATION_IMAGES, **describe_inputs(options)}
    with tempfile.TemporaryDirectory() as work:
        results = measure(options, Path(work))
    result = document(NAME, settings=json.loads(json.dumps(settings)), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 1 if results["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
