"""Reports with diagnostics, made up from a seed: what a residual network of any depth might have."""

from __future__ import annotations

from typing import Any

import numpy as np

SCHEME = "int8 1: x86-cpu"


def make_report(layers: int = 20, *, seed: int = 0) -> dict[str, Any]:
    """Returns a report as a bundle keeps it, with the diagnostics of one scheme."""
    return {
        "schema": "edgekit.compile/1",
        "name": "made-up-net",
        "float_accuracy": {"metric": "top1", "value": 0.9312, "samples": 5000, "drop": None, "kind": "measured"},
        "data": {"calibration": 64, "evaluation": 5000, "evaluation_source": "given", "skipped": [], "notes": []},
        "targets": [_target()],
        "diagnostics": {SCHEME: make_diagnosis(layers, seed=seed)},
    }


def make_diagnosis(layers: int = 20, *, seed: int = 0) -> dict[str, Any]:
    """Returns one diagnosis: the first layer and the last are float, one in the middle is far below the rest."""
    numbers = np.random.default_rng(seed)
    broken = layers // 2
    names = ["conv1", *(f"layer{1 + 3 * i // layers}.{i // 2}.conv{1 + i % 2}" for i in range(1, layers - 1)), "head"]
    own = numbers.normal(37, 3, layers).clip(22)
    own[broken] = 11.3
    accumulated = np.minimum(own - 1, 36 - 9 * np.arange(layers) / layers + numbers.normal(0, 1.2, layers))
    accumulated[broken:] -= 4
    is_float = [i in (0, layers - 1) for i in range(layers)]
    order = sorted((i for i in range(layers) if not is_float[i]), key=lambda i: own[i])
    listed = [
        {
            "name": names[i],
            "node": f"conv2d_{i}" if i < layers - 1 else "linear",
            "kind": "conv2d" if i < layers - 1 else "linear",
            "precision": "float" if is_float[i] else "int8",
            "own_sqnr_db": None if is_float[i] else float(own[i]),
            "accumulated_sqnr_db": float(accumulated[i]),
            "reason": ("3 input channels: float is as fast" if i == 0 else "costs 0.4 points") if is_float[i] else "",
            "rank": None if is_float[i] else order.index(i) + 1,
        }
        for i in range(layers)
    ]
    tensors = [_tensor(numbers, names, i, broken=i == broken) for i in range(1, layers - 1)]
    tensors.append({**_tensor(numbers, names, 3, broken=False), "name": "add_3", "consumers": [], "producer": ""})
    gains = zip(names[1:-1], numbers.normal(0.6, 0.8, layers - 2), strict=True)
    return {
        "images": 16,
        "outputs": [{"name": "output", "sqnr_db": float(accumulated[-1])}],
        "layers": listed,
        "tensors": tensors,
        "corrections": [
            {"stage": "correct-bias", "layer": name, "gain_db": float(gain), "kept": bool(gain > 0)}
            for name, gain in gains
        ],
        "findings": [
            {
                "what": "unsettled range",
                "where": f"relu_{broken}",
                "why": "the range from one half of the images is 34 % wider than from the other",
                "help": "give more images (--samples), now 64",
            },
            {
                "what": "classes without an image",
                "where": "calibration data",
                "why": "3 of 10 classes have none: bird, cat, deer",
                "help": "put images of each class into --data",
            },
        ],
    }


def _tensor(numbers: np.random.Generator, names: list[str], place: int, *, broken: bool) -> dict[str, Any]:
    signed = place % 4 == 0
    values = numbers.normal(0, 1, 20_000) if signed else np.maximum(numbers.normal(-0.2, 1, 20_000), 0)
    values *= numbers.uniform(0.5, 4)
    if broken:
        values[:12] *= 9
    low, high = float(values.min()), float(values.max())
    chosen = [0.9 * low, 0.9 * high] if not broken else [low, 0.35 * high]
    counts, edges = np.histogram(values, 64)
    return {
        "name": f"relu_{place}",
        "role": "conv",
        "consumers": [names[place]],
        "producer": names[place - 1],
        "observed": [low, high],
        "range": chosen,
        "method": "mse",
        "saturated": float(np.mean((values < chosen[0]) | (values > chosen[1]))),
        "utilisation": 0.42 if broken else float(numbers.uniform(0.75, 0.99)),
        "halves": [[chosen[0], 0.95 * chosen[1]], [chosen[0], (1.3 if broken else 0.99) * chosen[1]]],
        "unsettled": 0.34 if broken else float(numbers.uniform(0.005, 0.05)),
        "histogram": {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]},
    }


def _target() -> dict[str, Any]:
    drop = {"estimate": 0.12, "low": -0.05, "high": 0.29, "level": 0.95}
    ratio = {"estimate": 0.414, "low": 0.409, "high": 0.421, "level": 0.95}
    fast = {"p50_ms": 1.234, "p90_ms": 1.3, "samples": 400, "ratio_to_float": ratio}
    slow = {"p50_ms": 2.981, "p90_ms": 3.1, "samples": 400, "ratio_to_float": None}
    accuracy = {"metric": "top1", "samples": 5000, "kind": "measured", "per_class": {}}
    return {
        "target": "x86-cpu",
        "title": "Intel and AMD CPUs with VNNI",
        "shipped": ["int8"],
        "why": "the fastest of those that passed: 2.4 times as fast as fp32",
        "candidates": [
            {
                "precision": "int8",
                "status": "shipped",
                "reason": "passed every gate and is the fastest",
                "engine_bytes": 871_234,
                "accuracy": {**accuracy, "value": 0.93, "drop": drop},
                "latency": fast,
                "layer_counts": {"int8": 18, "f32": 2},
                "findings": [],
            },
            {
                "precision": "fp32",
                "status": "passed",
                "reason": "int8 is faster",
                "engine_bytes": 3_412_345,
                "accuracy": {**accuracy, "value": 0.9312, "drop": None},
                "latency": slow,
                "layer_counts": {"f32": 20},
                "findings": [],
            },
        ],
    }
