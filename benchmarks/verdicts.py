"""What the accuracy benchmark makes of every image's outcomes: drops, comparisons and the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.intervals import mean_drop_interval
from edgekit.bench.statistics import Interval, paired_interval
from edgekit.config import to_dict

__all__ = ["AVERAGE_BOUND_POINTS", "PEERS", "conditions", "in_points", "kept", "summarize_network"]

Outcomes = npt.NDArray[np.int8]
PEERS = ("nncf", "nncf-full", "onnxruntime")
AVERAGE_BOUND_POINTS: Mapping[str, float] = {"edgekit-default": 0.3, "edgekit-accurate": 0.2}
_COMPARED = "edgekit-default"


def in_points(interval: Interval) -> dict[str, float]:
    """Returns an interval of a fraction in percentage points."""
    plain: dict[str, float] = to_dict(interval)
    return {name: value if name == "level" else 100 * value for name, value in plain.items()}


def summarize_network(
    reference: Outcomes, tools: Mapping[str, Mapping[int, Outcomes]], *, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Puts the seeds of one network together.

    Args:
        reference: (images,) of 0 or 1, the float network's.
        tools: Tool to seed to the same.
        facts: Tool to what else is recorded of it.

    Returns:
        Accuracies as fractions; drops and differences in points, with their intervals: over other seeds and images, and
        over other images alone. A positive difference says that the peer, the best one by its mean over the seeds, is
        right more often.
    """
    stacked = {tool: np.stack(list(seeds.values())) for tool, seeds in tools.items()}
    summary: dict[str, Any] = {"images": int(reference.size), "float": {"top1": float(reference.mean())}, "tools": {}}
    for tool, seeds in tools.items():
        summary["tools"][tool] = {
            "top1": float(stacked[tool].mean()),
            "drop": in_points(mean_drop_interval(reference, stacked[tool], seed=0)),
            "drop_of_these_seeds": in_points(mean_drop_interval(reference, stacked[tool], seed=0, across_seeds=False)),
            "seeds": [
                {
                    "seed": seed,
                    "top1": float(outcomes.mean()),
                    "drop": in_points(paired_interval(reference, outcomes)),
                }
                for seed, outcomes in seeds.items()
            ],
            **facts[tool],
        }
    peers = [tool for tool in PEERS if tool in tools]
    if peers:
        best = max(peers, key=lambda tool: float(stacked[tool].mean()))
        summary["best_peer"] = best
        for name, across_seeds in (("peer_minus_edgekit", True), ("peer_minus_edgekit_of_these_seeds", False)):
            summary[name] = {
                tool: in_points(mean_drop_interval(stacked[best], rows, seed=0, across_seeds=across_seeds))
                for tool, rows in stacked.items()
                if tool not in PEERS
            }
    return summary


def conditions(networks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Holds the summaries against what must be seen; what was not measured has ``kept`` null.

    1. The mean drop of a recipe, averaged over the networks, is within its bound.
    2. On no network is the best peer better than ``default`` by more than their paired interval, over images and seeds,
       leaves open.
    """
    found: list[dict[str, Any]] = []
    for tool, bound in AVERAGE_BOUND_POINTS.items():
        drops = [item["tools"][tool]["drop"]["estimate"] for item in networks.values() if tool in item["tools"]]
        value = float(np.mean(drops)) if drops and len(drops) == len(networks) else None
        found.append(
            {
                "what": f"mean drop of {tool}, averaged over the networks, at most {bound} points",
                "value": value,
                "kept": None if value is None else value <= bound,
            }
        )
    for name, item in networks.items():
        gap = item.get("peer_minus_edgekit", {}).get(_COMPARED)
        found.append(
            {
                "what": f"{name}: within the paired interval over images and seeds, {_COMPARED} no worse than the best "
                "peer",
                "value": gap,
                "kept": None if gap is None else gap["low"] <= 0,
            }
        )
    return found


def kept(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no condition was missed; one that was not measured is not missed."""
    return all(item["kept"] is not False for item in found)
