"""What the GPU benchmark makes of its parts: drops, ratios of times, and the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu_worker import AGAIN, ORT, TORCH
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.sides import process_ratios
from benchmarks.verdicts import AVERAGE_BOUND_POINTS, in_points
from edgekit.bench.statistics import paired_interval
from edgekit.config import to_dict

__all__ = ["conditions", "summarize_accuracy", "summarize_latency"]

PEERS = (TORCH, ORT)
INT8_BOUND_POINTS = AVERAGE_BOUND_POINTS["edgekit-default"]
OURS = "edgekit "


def summarize_accuracy(reference: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Puts an engine's outcomes against the float network's; both are one character an image, 1 where right.

    Returns:
        The facts with ``top1`` and ``drop`` (points, paired interval) in the place of the outcomes.
    """
    if "failed" in facts:
        return dict(facts)
    right, wanted = (np.array([int(item) for item in text], dtype=np.int8) for text in (facts["outcomes"], reference))
    rest = {key: value for key, value in facts.items() if key != "outcomes"}
    return {**rest, "top1": float(right.mean()), "drop": in_points(paired_interval(wanted, right))}


def summarize_latency(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Puts the fresh processes together; a side counts where every process has it.

    Returns:
        ``missing``: side to why it is not there. ``time_us`` and ``p99_us``: side to the mean over processes with its
        interval. ``best``: our fastest side. ``ratio``: every other side to the best one's time over its own.
        ``facts``: what each process said besides.
    """
    missing: dict[str, str] = {}
    for run in runs:
        missing |= {name: why for name, why in run["missing"].items() if name not in missing}
    names = [name for name in runs[0]["median_us"] if all(name in run["median_us"] for run in runs)]
    times = {name: to_dict(process_mean_interval([run["median_us"][name] for run in runs])) for name in names}
    ours = [name for name in names if name.startswith(OURS) and not name.endswith(AGAIN)]
    best = min(ours, key=lambda name: float(times[name]["estimate"]), default=None)
    rivals = [] if best is None else [name for name in names if name != best]
    ratios = {name: process_ratios(runs, str(best), [name]) for name in rivals}
    return {
        "missing": missing,
        "time_us": times,
        "p99_us": {name: to_dict(process_mean_interval([run["p99_us"][name] for run in runs])) for name in names},
        "best": best,
        "ratio": {name: to_dict(process_ratio_interval(values)) for name, values in ratios.items()},
        "ratio_of_each_process": ratios,
        "facts": [{key: run.get(key) for key in ("calls", "stable", "float_distance")} for run in runs],
    }


def conditions(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Holds the results against what must be seen; what was not measured has ``kept`` null.

    1. An engine answers the golden inputs within its bound.
    2. The interval of an engine's drop against float reaches the bound: that of the accuracy benchmark for int8, zero
       for fp16.
    3. Our fastest engine is no slower than a peer: the interval of the ratio reaches 1 or below.
    4. Memory is flat over the soak.
    5. No test marked ``gpu`` fails, and some pass.
    """
    found: list[dict[str, Any]] = []

    def add(what: str, value: Any, kept: bool | None) -> None:
        found.append({"what": what, "value": value, "kept": kept})

    for target, item in results["targets"].items():
        if "engines" not in item:
            add(f"{target}: runs here", None, None)
            continue
        for precision, engine in item["engines"].items():
            name = f"{target}, {precision}"
            if "drop" not in engine:
                add(f"{name}: runs and answers as float does", None, None)
                continue
            error, bound = engine["golden_rel_l2"], engine["golden_bound"]
            add(f"{name}: golden error at most {bound:.4f}", error, error <= bound)
            points = INT8_BOUND_POINTS if precision == "int8" else 0.0
            drop = engine["drop"]
            add(f"{name}: the drop's interval reaches {points:g} points or below", drop, drop["low"] <= points)
        soaked = item["soak"]
        if "flat" in soaked:
            growth = max(soaked["device_growth_bytes"], soaked["rss_growth_bytes"]) / 2**20
            add(f"{target}: memory is flat over {soaked['calls']} calls (growth, MiB)", growth, soaked["flat"])
        else:
            add(f"{target}: memory is flat", None, None)
    ratios = results["latency"].get("ratio", {})
    for peer in PEERS:
        ratio = ratios.get(peer)
        what = f"our fastest engine no slower than {peer}: the ratio's interval reaches 1 or below"
        add(what, ratio, None if ratio is None else ratio["low"] <= 1)
    tests = results["tests"]
    counted = tests.get("passed")
    ran = counted is not None and (counted > 0 or tests["failures"])
    add("no test marked gpu fails (passed)", counted, not tests["failures"] if ran else None)
    return found
