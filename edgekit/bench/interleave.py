"""Interleaved measurement: every side runs in every block, in mirrored order, so that drift and order cancel."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from edgekit.bench.quiet import collector_paused
from edgekit.errors import InternalError
from edgekit.progress import Progress

__all__ = ["SMALLEST_LEAD", "interleave", "timed"]

SMALLEST_LEAD = 0.98
"""Noise must not pick: of two engines the first wins, unless the other takes less than this share of its time."""

_BLOCKS = 12
_VISIT_NS = 25e6


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    blocks: int,
    per_visit: int,
    seed: int,
    settle: int = 2,
    on_block: Callable[[], object] = lambda: None,
) -> dict[str, npt.NDArray[np.int64]]:
    """Times several callables against each other.

    In every block each side is visited twice, in a random order and then in its mirror image (A B, B A): what a
    position in the order or a linear drift adds, it adds to both. Python's garbage collector rests while a block is
    timed and runs between blocks.

    Args:
        calls: Name to callable; a call is one sample.
        blocks: How many blocks.
        per_visit: Timed calls in each of a side's two visits of a block.
        seed: Seed of the order.
        settle: Untimed calls at the start of each visit, which bring caches back from the other side.
        on_block: Called after each block, outside of the timing.

    Returns:
        Name to (blocks, 2 * per_visit) int64: nanoseconds of each call.

    Raises:
        InternalError: Nothing to call, or a count below 1 (``settle``: below 0).
    """
    if not calls or blocks < 1 or per_visit < 1 or settle < 0:
        raise InternalError(f"cannot interleave {len(calls)} calls, {blocks} blocks of {per_visit} after {settle}")
    generator = random.Random(seed)
    samples = {name: np.empty((blocks, 2 * per_visit), dtype=np.int64) for name in calls}
    for block in range(blocks):
        order = sorted(calls, key=lambda _: generator.random())
        with collector_paused():
            for visit, names in enumerate((order, order[::-1])):
                for name in names:
                    start = visit * per_visit
                    samples[name][block, start : start + per_visit] = _visit(calls[name], per_visit, settle)
        on_block()
    return samples


def _visit(call: Callable[[], object], count: int, settle: int) -> list[int]:
    for _ in range(settle):
        call()
    times = []
    for _ in range(count):
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return times


def timed(
    calls: Mapping[str, Callable[[], object]], *, label: str, seed: int, progress: Progress, blocks: int = _BLOCKS
) -> dict[str, npt.NDArray[np.int64]]:
    """Times callables against each other, interleaved, for about as long as each needs to be told from the others.

    Args:
        calls: Name to callable.
        label: Of the progress.
        seed: Seed of the order.
        progress: Where progress is shown.
        blocks: How many blocks; more make the interval narrower.

    Returns:
        Name to (blocks, calls) int64 nanoseconds.
    """
    probe = interleave(calls, blocks=1, per_visit=5, seed=seed)
    slowest = max(float(np.median(samples)) for samples in probe.values())
    per_visit = int(np.clip(_VISIT_NS / slowest, 3, 200))
    with progress.task(label, blocks) as bar:
        return interleave(calls, blocks=blocks, per_visit=per_visit, seed=seed, on_block=lambda: bar.advance(1))
