"""Single-stream scenario: one call after the other, each one timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.bench.quiet import collector_paused
from edgekit.errors import InternalError

__all__ = ["Budget", "Pipeline", "Stages", "harness_overhead_ns", "measure", "measure_stages"]

FrameT = TypeVar("FrameT")
FeedsT = TypeVar("FeedsT")
OutputsT = TypeVar("OutputsT")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a measurement runs: until both minima are reached, but no longer than the maximum.

    Attributes:
        min_s: Least duration, seconds.
        min_calls: Least number of calls.
        max_s: Longest duration; at least one call is always made.
    """

    min_s: float
    min_calls: int
    max_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_s <= self.max_s or self.min_calls < 1:
            raise InternalError(f"impossible measuring budget: {self}")


@dataclass(frozen=True, kw_only=True)
class Stages:
    """(N,) int64 nanoseconds of the three parts of each sample."""

    preprocess_ns: npt.NDArray[np.int64]
    engine_ns: npt.NDArray[np.int64]
    postprocess_ns: npt.NDArray[np.int64]

    @property
    def total_ns(self) -> npt.NDArray[np.int64]:
        """(N,) int64 nanoseconds from frame to result."""
        return self.preprocess_ns + self.engine_ns + self.postprocess_ns


@dataclass(frozen=True, kw_only=True)
class Pipeline(Generic[FrameT, FeedsT, OutputsT]):
    """The three parts of end-to-end inference.

    Attributes:
        preprocess: Frame to feeds.
        engine: Feeds to outputs.
        postprocess: Outputs and their frame to the result.
    """

    preprocess: Callable[[FrameT], FeedsT]
    engine: Callable[[FeedsT], OutputsT]
    postprocess: Callable[[OutputsT, FrameT], object]


def measure(
    call: Callable[[int], object], budget: Budget, *, on_call: Callable[[], object] | None = None
) -> npt.NDArray[np.int64]:
    """Times one call after the other, with Python's garbage collector paused.

    Args:
        call: Takes the number of the call, so that it can go round its inputs.
        budget: How long.
        on_call: Called after each sample, outside of its timing.

    Returns:
        (N,) int64: nanoseconds of each call.
    """
    times: list[int] = []
    with collector_paused():
        begin = perf_counter_ns()
        earliest, latest = begin + int(budget.min_s * 1e9), begin + int(budget.max_s * 1e9)
        while True:
            number = len(times)
            start = perf_counter_ns()
            call(number)
            end = perf_counter_ns()
            times.append(end - start)
            if on_call is not None:
                on_call()
            if end >= latest or (end >= earliest and number + 1 >= budget.min_calls):
                return np.asarray(times, dtype=np.int64)


def measure_stages(
    pipeline: Pipeline[FrameT, FeedsT, OutputsT],
    frames: Sequence[FrameT],
    budget: Budget,
    *,
    on_call: Callable[[], object] | None = None,
) -> Stages:
    """Times preprocessing, engine and postprocessing of each sample apart, going round the frames.

    Args:
        pipeline: The three parts.
        frames: What is fed, in turn.
        budget: How long.
        on_call: Called after each sample, outside of its timing.
    """
    parts: list[tuple[int, int, int]] = []

    def once(number: int) -> None:
        frame = frames[number % len(frames)]
        start = perf_counter_ns()
        feeds = pipeline.preprocess(frame)
        prepared = perf_counter_ns()
        outputs = pipeline.engine(feeds)
        inferred = perf_counter_ns()
        pipeline.postprocess(outputs, frame)
        parts.append((prepared - start, inferred - prepared, perf_counter_ns() - inferred))

    measure(once, budget, on_call=on_call)
    table = np.asarray(parts, dtype=np.int64)
    return Stages(preprocess_ns=table[:, 0], engine_ns=table[:, 1], postprocess_ns=table[:, 2])


def harness_overhead_ns(calls: int = 2000) -> float:
    """Measures what the harness adds to each sample: the median time of an empty call, nanoseconds."""
    budget = Budget(min_s=0.0, min_calls=calls, max_s=1.0)
    return float(np.median(measure(lambda _: None, budget)))
