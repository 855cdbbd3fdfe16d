"""26 networks in int8: edgekit's engines against NNCF's, in time and in signal-to-noise ratio.

    python -m benchmarks networks [--networks resnet18 vit_tiny] [--work FOLDER] [--record]

The networks have seeded random weights and settled batch norms (``zoo/``), so nothing has to be downloaded. Both tools
get the same torch module and the same 32 pictures as normalized float NCHW, and give an OpenVINO IR with that input:
edgekit with its default recipe for ``x86-cpu``; NNCF with its defaults on ``ov.convert_model(module)``, both presets,
for transformers both once more with ``model_type=TRANSFORMER``, and for the
recurrent network both once more with its LSTMs left float: OpenVINO computes NNCF's int8 LSTM wrongly. A variant whose
noise exceeds the signal is recorded and not compared. All run in the same OpenVINO with the same
properties (INFERENCE_PRECISION_HINT f32, PERFORMANCE_HINT LATENCY, the threads stated).

Each engine is built once. Then fresh processes open all sides of one network, in drawn orders that come in mirrored
pairs, and time them in blocks, in random mirrored order. A process gives one ratio: the median over its blocks of
the ratio of medians; the interval is Student's t over the logarithms of the processes' ratios. "NNCF" is its variant
with the lowest time over all processes, for each number of threads. The geometric mean over networks is taken in each
process number and its interval is again over those: it speaks of these networks. One network with an extreme
ratio must not carry the mean, so the mean without the best network is held to the bound too.

SQNR: 10 log10 of the squares of the float module's outputs over the squares of the differences, on 64 pictures that no
side has seen. It is compared with NNCF's best variant, whichever is the fastest. With random weights some pictures give
outputs far larger than most and carry the sum: so the pictures are many, and beside the sum stands the ratio of the
median picture, for information.

Finished parts are kept in ``--work`` and used again while what they depend on (edgekit's files, these files, versions,
options) is the same, so an interrupted run goes on. Bounds: mean ratio at most 1.01 by its upper end, no network above
1.05 by its lower end; SQNR at least NNCF's on nine of ten networks and nowhere more than 1 dB below.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_worker import PROPERTIES
from benchmarks.exact import require_exact_products
from benchmarks.fresh import ROOT, run_fresh
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.keeping import digest, kept
from benchmarks.networks_build import OURS
from benchmarks.record import add_output, cell, document, markdown_table, publish
from benchmarks.sides import block_ratio, opening_order
from benchmarks.zoo.networks import NETWORKS
from edgekit.config import to_dict

NAME = "networks"
BOUND_MEAN, BOUND_EACH = 1.01, 1.05
BOUND_DB, ONE_BELOW_IN = 1.0, 10
FLOAT = "float"
# What a kept result depends on, beside options: each tool's own, and what both share.
_SOURCES = {
    "edgekit": ("edgekit/**/*.py", "targets/x86-cpu.toml", "calibration/*.toml"),
    "nncf": ("benchmarks/nncf_build.py",),
    "both": (
        "benchmarks/zoo/*.py",
        "benchmarks/networks_build.py",
        "benchmarks/noise.py",
        "benchmarks/engine_worker.py",
    ),
}
_VERSIONS = ("nncf", "onnx", "onnxscript", "openvino", "timm", "torch")


def rivals(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns NNCF's variants that answer: those whose noise is not larger than the signal.

    OpenVINO computes NNCF's int8 LSTM wrongly: it clips the hidden state to the range of the input. Such an engine is
    fast, but is no engine of the network.
    """
    return [name for name, item in sides.items() if name not in (OURS, FLOAT) and item["sqnr_db"] >= 0]


def summarize_network(runs: Sequence[Mapping[str, Any]], against: Sequence[str]) -> dict[str, Any]:
    """Puts together the processes of one network and one number of threads.

    Args:
        runs: Answers of the timing processes, at least two.
        against: NNCF's variants that count.
    """
    names = sorted(runs[0]["block_medians_us"])
    ratios = {
        name: [block_ratio(run["block_medians_us"][OURS], run["block_medians_us"][name]) for run in runs]
        for name in names
        if name != OURS
    }
    # The fastest variant is the one against which edgekit's geometric mean is the largest.
    fastest = max(against, key=lambda name: float(np.log(ratios[name]).mean()))
    return {
        "fastest": fastest,
        "ratio": to_dict(process_ratio_interval(ratios[fastest])),
        "ratio_of_each_process": ratios,
        "time_us": {name: to_dict(process_mean_interval([run["median_us"][name] for run in runs])) for name in names},
        "unstable_warm_ups": sum(not stable for run in runs for stable in run["stable"].values()),
    }


def mean_ratio(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the geometric mean over networks, with an interval over processes.

    Args:
        summaries: One per network, from :func:`summarize_network`, of equally many processes.
    """
    logs = np.log([item["ratio_of_each_process"][item["fastest"]] for item in summaries])
    interval: dict[str, float] = to_dict(process_ratio_interval(np.exp(logs.mean(axis=0))))
    return interval


def summarize_threads(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Puts the networks of one number of threads together: the mean, and the mean without the best network."""
    best = min(summaries, key=lambda name: summaries[name]["ratio"]["estimate"])
    others = [item for name, item in summaries.items() if name != best]
    return {
        "networks": dict(summaries),
        "mean": mean_ratio(list(summaries.values())),
        "best_network": best,
        "mean_without_best": mean_ratio(others) if others else None,
    }


def quietest(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns NNCF's variant with the highest SQNR over all pictures."""
    return max(rivals(sides), key=lambda name: float(sides[name]["sqnr_db"]))


def noise_margin(sides: Mapping[str, Mapping[str, Any]], key: str = "sqnr_db") -> float:
    """Returns by how many decibels edgekit's SQNR is above that of NNCF's best variant."""
    return float(sides[OURS][key] - sides[quietest(sides)][key])


def findings(built: Mapping[str, Mapping[str, Any]], threads: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what is outside of the bounds, in words; nothing where all hold."""
    found = []
    for count, summary in threads.items():
        for what, interval in (("mean", summary["mean"]), ("mean without the best", summary["mean_without_best"])):
            if interval is not None and interval["high"] > BOUND_MEAN:
                found.append(f"{count} threads: {what} {cell(interval, '.3f')}, expected at most {BOUND_MEAN}")
        found += [
            f"{count} threads: {name} {cell(item['ratio'], '.3f')}, expected to reach {BOUND_EACH}"
            for name, item in summary["networks"].items()
            if item["ratio"]["low"] > BOUND_EACH
        ]
    margins = {name: noise_margin(sides) for name, sides in built.items()}
    below = {name: margin for name, margin in margins.items() if margin < 0}
    if len(below) * ONE_BELOW_IN > len(margins):
        found.append(f"SQNR below NNCF's on {len(below)} of {len(margins)} networks: {', '.join(below)}")
    found += [
        f"{name}: SQNR {-margin:.1f} dB below NNCF's, expected at most {BOUND_DB}"
        for name, margin in below.items()
        if margin < -BOUND_DB
    ]
    return found


def int8_share(layers: Mapping[str, Mapping[str, int]]) -> str:
    """Returns how many compute layers ran in int8, as ``int8 / all``."""
    total = sum(count for kinds in layers.values() for count in kinds.values())
    return f"{sum(kinds.get('int8', 0) for kinds in layers.values())} / {total}"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    threads = results["threads"]
    rows = []
    for name, sides in results["built"].items():
        best = quietest(sides)
        first = next(iter(threads.values()))["networks"][name]["fastest"]
        rows.append(
            (
                name,
                *(cell(summary["networks"][name]["ratio"], ".3f") for summary in threads.values()),
                f"{sides[OURS]['sqnr_db']:.1f}",
                f"{sides[best]['sqnr_db']:.1f}",
                f"{sides[OURS]['median_sqnr_db']:.1f}",
                f"{sides[best]['median_sqnr_db']:.1f}",
                int8_share(sides[OURS]["layers"]),
                int8_share(sides[first]["layers"]),
            )
        )
    for label, key in (("geometric mean", "mean"), ("without the best", "mean_without_best")):
        cells = ["" if summary[key] is None else f"**{cell(summary[key], '.3f')}**" for summary in threads.values()]
        rows.append((label, *cells, *[""] * 6))
    head = (
        "network",
        *(f"time / NNCF's, {count} thread{'' if count == '1' else 's'} [95 %]" for count in threads),
        "SQNR, dB",
        "NNCF's",
        "median picture",
        "NNCF's",
        "int8 layers",
        "NNCF's",
    )
    found = results["findings"]
    at_least, in_median = (
        sum(noise_margin(sides, key) >= 0 for sides in results["built"].values())
        for key in ("sqnr_db", "median_sqnr_db")
    )
    verdict = "kept" if not found else "MISSED: " + "; ".join(found)
    wrong = [
        f"{name} {side} ({item['sqnr_db']:.1f} dB)"
        for name, sides in results["built"].items()
        for side, item in sides.items()
        if side not in (OURS, FLOAT, *rivals(sides))
    ]
    left_out = f" Not compared, because noise exceeds the signal: {', '.join(wrong)}." if wrong else ""
    return (
        f"{markdown_table(head, rows)}\n\n{settings['processes']} fresh processes for each network and number of "
        f"threads. SQNR at least NNCF's best on {at_least} of {len(rows) - 2} networks, in the median picture on "
        f"{in_median}. Bounds: the mean ratio at most "
        f"{BOUND_MEAN}, with and without the best network; no network above {BOUND_EACH}; SQNR at least NNCF's on nine "
        f"of ten and nowhere more than {BOUND_DB:.0f} dB below: {verdict}.{left_out}"
    )


def source_digest(kind: str) -> str:
    """Returns a digest of the files and versions that a tool's results depend on."""
    files = [path for pattern in (*_SOURCES[kind], *_SOURCES["both"]) for path in sorted(ROOT.glob(pattern))]
    content = {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return digest(content, {name: version(name) for name in _VERSIONS})


def build(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Builds all sides of a network, each tool in a process of its own; returns the facts and what they depend on."""
    facts: dict[str, Any] = {}
    stamps = []
    for tool in ("edgekit", "nncf"):
        task = {
            "network": name,
            "work": str(options.work.absolute() / name),
            "images": options.images,
            "held_out": options.held_out,
            "recipe": options.recipe,
            "threads": max(options.threads),
            "sides": [tool],
        }
        told = {key: value for key, value in task.items() if key not in ("work", "threads")}
        stamps.append(digest(source_digest(tool), told))
        path = options.work / name / f"built-{tool}.json"
        facts |= kept(path, stamps[-1], lambda task=task: run_fresh("networks_build", task)["sides"])
    return facts, digest(stamps)


def time_process(
    name: str, process: int, threads: int, sides: Sequence[str], built_from: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Times all int8 sides of a network in one fresh process."""
    task = {
        "threads": threads,
        "blocks": options.blocks,
        "seconds": options.seconds,
        "settle": 2,
        "warm_up_s": options.warm_up,
        "seed": process,
    }
    folder = options.work.absolute() / name
    places = {
        "sides": [(side, str(folder / f"{side}.xml")) for side in opening_order(sides, process)],
        "inputs": str(folder / "inputs.npz"),
    }
    path = folder / f"time-{threads}-{process}.json"
    return kept(path, digest(built_from, task), lambda: run_fresh("engine_worker", {**task, **places}))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the benchmark: builds everything first, then times process by process, so that drift meets all alike."""
    built: dict[str, dict[str, Any]] = {}
    stamps: dict[str, str] = {}
    for name in options.networks:
        built[name], stamps[name] = build(name, options)
        print(f"{name}: built, SQNR {noise_margin(built[name]):+.2f} dB against NNCF's best", flush=True)
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        str(threads): {name: [] for name in options.networks} for threads in options.threads
    }
    for process in range(options.processes):
        for threads in options.threads if process % 2 == 0 else options.threads[::-1]:
            for name in options.networks:
                sides = sorted(side for side in built[name] if side != FLOAT)
                run = time_process(name, process, threads, sides, stamps[name], options)
                runs[str(threads)][name].append(run)
                times = run["median_us"]
                ratio = times[OURS] / min(times[side] for side in rivals(built[name]))
                print(f"process {process + 1}, {threads} threads, {name}: {ratio:.3f}", flush=True)
    threads_summaries = {
        threads: summarize_threads(
            {name: summarize_network(items, rivals(built[name])) for name, items in networks.items()}
        )
        for threads, networks in runs.items()
    }
    found = findings(built, threads_summaries)
    return {"built": built, "threads": threads_summaries, "findings": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--processes", type=int, default=6, help="fresh processes for each number of threads; even")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.5, help="timed seconds for each side in a process")
    parser.add_argument("--blocks", type=int, default=10, help="blocks in each process, at most")
    parser.add_argument("--warm-up", type=float, default=0.2, help="seconds of warm-up for each side, at least")
    parser.add_argument("--images", type=int, default=32, help="calibration pictures of both tools")
    parser.add_argument("--held-out", type=int, default=64, help="pictures for the SQNR")
    parser.add_argument("--recipe", default="default", help="edgekit's calibration recipe")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "edgekit-networks", help="where parts are kept"
    )
    add_output(parser, NAME)
    options = parser.parse_args()
    require_exact_products()
    if options.processes < 2 or options.processes % 2:
        parser.error(f"--processes: expected an even number, got {options.processes}: orders of opening come in pairs")
    load_average = os.getloadavg()[0]
    names = ("networks", "processes", "threads", "seconds", "blocks", "warm_up", "images", "held_out", "recipe")
    settings = {name: getattr(options, name) for name in names} | {"properties": PROPERTIES}
    settings["timm"] = version("timm")
    results = measure(options)
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if not results["findings"] else 1


if __name__ == "__main__":
    sys.exit(main())
