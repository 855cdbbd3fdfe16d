"""What calibration knows of each tensor: for the report, its tables and its chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, is_call, layer_name
from edgekit.passes.quantize.calibrate import Observed
from edgekit.passes.quantize.grids import Grid
from edgekit.passes.quantize.observers import Observer
from edgekit.passes.quantize.policy import Plan, Site, moves_only

__all__ = ["tensor_findings", "tensor_records"]

_BINS = 64
# Ranges that differ by more than this between the halves of the images have not settled.
_UNSETTLED = 0.25
# A larger share of clipped values is more than the tail of a distribution.
_SATURATED = 0.01


def tensor_records(
    plan: Plan, grids: Mapping[Site, Grid], observed: Mapping[Site, Observed], methods: Mapping[Site, str]
) -> list[dict[str, Any]]:
    """Returns one plain record per quantized tensor, in graph order; the keys are those of ``docs/json.md``.

    Args:
        plan: Where tensors are quantized.
        grids: The chosen grids.
        observed: What calibration saw.
        methods: How each range was found.
    """
    consumers: dict[Site, list[fx.Node]] = {}
    for edge in plan.edges:
        for site in edge.sites:
            consumers.setdefault(site, []).append(edge.consumer)
    records = []
    for site, readers in consumers.items():
        seen, grid = observed[site], grids[site]
        low, high = (float(item) for item in seen.whole.observed)
        chosen = grid.limits()
        halves = [_half_range(half, seen.whole, chosen) for half in seen.halves]
        covered = min(high, chosen[1]) - max(low, chosen[0])
        records.append(
            {
                "name": site.node.name,
                "role": site.role,
                "producer": _producer(site.node),
                "consumers": list(dict.fromkeys(layer_name(node) for node in readers)),
                "observed": [low, high],
                "range": list(chosen),
                "method": methods[site],
                "saturated": seen.whole.histogram.share_outside(*_widened(chosen, grid)),
                "utilisation": max(covered, 0.0) / (chosen[1] - chosen[0]),
                "halves": halves,
                "unsettled": _apart(halves),
                "lone_outlier": seen.credible() is not None,
                "histogram": _histogram(seen.whole, low, high),
            }
        )
    return records


def tensor_findings(records: Iterable[Mapping[str, Any]], *, images: int) -> list[dict[str, str]]:
    """Says which tensors calibration knows too little of, and what would help.

    Args:
        records: From :func:`tensor_records`.
        images: How many images were used.
    """
    findings = []
    for record in records:
        where = str(record["name"])
        if record["observed"] == [0.0, 0.0]:
            findings.append(
                {
                    "what": "nothing but zeros",
                    "where": where,
                    "why": "no calibration image gave this tensor any other value, so its range is a guess: up to 1",
                    "help": "give images on which this part of the network does something (--data)",
                }
            )
        elif record["lone_outlier"]:
            findings.append(
                {
                    "what": "lone outlier",
                    "where": where,
                    "why": f"one half of the images has values from {record['observed'][0]:.4g} to "
                    f"{record['observed'][1]:.4g}, the other nothing of the kind",
                    "help": "look for a broken image among the calibration images (--data)",
                }
            )
        elif record["unsettled"] is not None and record["unsettled"] > _UNSETTLED:
            findings.append(
                {
                    "what": "unsettled range",
                    "where": where,
                    "why": f"the ranges from the two halves of the images differ by {100 * record['unsettled']:.0f} %",
                    "help": f"give more images, or more varied ones (--samples, now {images})",
                }
            )
        if record["saturated"] > _SATURATED:
            findings.append(
                {
                    "what": "saturation",
                    "where": where,
                    "why": f"{100 * record['saturated']:.1f} % of the values lie outside the chosen range",
                    "help": "try another way to find ranges (ranges.method in the recipe: minmax, search)",
                }
            )
    return findings


def _half_range(half: Observer, whole: Observer, chosen: tuple[float, float]) -> list[float] | None:
    """What one half of the images says of the chosen range: where it would clip the same share as the whole does."""
    if int(half.histogram.total.sum()) == 0:
        return None
    low, high = (float(item) for item in half.observed)
    all_low, all_high = (float(item) for item in whole.observed)
    # Where nothing is clipped, the extremes themselves are compared.
    return [
        low if chosen[0] <= all_low else _quantile(half, whole, chosen[0]),
        high if chosen[1] >= all_high else _quantile(half, whole, chosen[1]),
    ]


def _quantile(half: Observer, whole: Observer, value: float) -> float:
    lower, upper, counts = whole.histogram.buckets()
    share = float(counts[(lower + upper) / 2 <= value].sum() / counts.sum())
    lower, upper, counts = half.histogram.buckets()
    place = torch.searchsorted(counts.cumsum(0) / counts.sum(), torch.tensor(share, dtype=torch.float64))
    index = int(place.clamp_max(len(counts) - 1))
    return float((lower[index] + upper[index]) / 2)


def _apart(halves: list[list[float] | None]) -> float | None:
    """How far the wider of the two ranges exceeds the narrower, as a share of the wider."""
    first, second = halves
    if first is None or second is None:
        return None
    widths = sorted(max(item[1], 0.0) - min(item[0], 0.0) for item in (first, second))
    return (widths[1] - widths[0]) / widths[1] if widths[1] > 0 else 0.0


def _widened(chosen: tuple[float, float], grid: Grid) -> tuple[float, float]:
    """Values up to half a step beyond the last real are rounded to it, not clipped."""
    half = float(grid.scale.max()) / 2
    return chosen[0] - half, chosen[1] + half


def _histogram(seen: Observer, low: float, high: float) -> dict[str, list[float]]:
    low, high = min(low, 0.0), max(high, 0.0)
    edges = torch.linspace(low, high if high > low else low + 1.0, _BINS + 1, dtype=torch.float64)
    counts = seen.histogram.spread(edges)
    return {
        "edges": [float(f"{item:.6g}") for item in edges.tolist()],
        "counts": [round(x, 1) for x in counts.tolist()],
    }


def _producer(node: fx.Node) -> str:
    """The compute layer whose result this is, through activations and moves; empty where there is none."""
    while not is_call(node, COMPUTE):
        inputs = [item for item in node.all_input_nodes if item.op == "call_function"]
        if len(inputs) != 1 or not (moves_only(node) or len(node.all_input_nodes) == 1):
            return ""
        node = inputs[0]
    return layer_name(node)
