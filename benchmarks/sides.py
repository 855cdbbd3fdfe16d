"""Engines against each other in several fresh processes: in which order they are opened, and what a ratio is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["block_ratio", "opening_order", "process_ratios"]


def block_ratio(ours: Sequence[float], rival: Sequence[float]) -> float:
    """Returns the median over blocks of the ratio of the two medians of a block."""
    return float(np.median(np.asarray(ours) / np.asarray(rival)))


def process_ratios(runs: Sequence[Mapping[str, Any]], ours: str, rivals: Sequence[str]) -> list[float]:
    """Returns, for each process, the time of our engine over that of the rival that was fastest there."""
    return [
        max(block_ratio(run["block_medians_us"][ours], run["block_medians_us"][rival]) for rival in rivals)
        for run in runs
    ]


def opening_order(names: Sequence[str], process: int) -> list[str]:
    """Returns the order in which a process opens the sides: drawn for an even process, mirrored for the odd one after.

    Of two copies of one engine in one process, the one that was opened first runs a little faster. Over each such pair
    of processes, every side is opened before every other exactly once.
    """
    order = random.Random(process // 2).sample(list(names), len(names))
    return order if process % 2 == 0 else order[::-1]
