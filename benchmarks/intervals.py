"""Intervals over what edgekit's own statistics do not cover: several processes, several calibration seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student  # type: ignore[import-untyped]

from edgekit.bench.statistics import Interval

__all__ = ["mean_drop_interval", "process_mean_interval", "process_ratio_interval"]


def process_ratio_interval(ratios: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Estimates a ratio of times from one ratio per fresh process.

    The geometric mean of the ratios with Student's t interval of their logarithms: a process is the unit of
    replication, so that what differs between processes (memory layout, scheduling) is in the interval. It assumes that
    the logarithms of the ratios are about normal; each is a ratio of medians of many calls.

    Args:
        ratios: (processes,) time of A over time of B, at least two.
        level: Confidence.

    Raises:
        ValueError: Fewer than two ratios, or one that is not positive.
    """
    values = np.asarray(ratios, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not (values > 0).all():
        raise ValueError(f"expected at least two positive ratios, got {values.tolist()}")
    logs = process_mean_interval(np.log(values), level=level)
    return Interval(estimate=math.exp(logs.estimate), low=math.exp(logs.low), high=math.exp(logs.high), level=level)


def process_mean_interval(values: npt.ArrayLike, *, level: float = 0.95) -> Interval:
    """Estimates a mean from one value per fresh process, with Student's t interval.

    Raises:
        ValueError: Fewer than two values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"expected at least two values, got {sample.tolist()}")
    center = float(sample.mean())
    reach = float(student.ppf(0.5 + level / 2, sample.size - 1) * sample.std(ddof=1) / math.sqrt(sample.size))
    return Interval(estimate=center, low=center - reach, high=center + reach, level=level)


def mean_drop_interval(
    reference: npt.ArrayLike, candidates: npt.ArrayLike, *, seed: int, resamples: int = 20000, level: float = 0.95
) -> Interval:
    """Estimates ``accuracy(reference) - mean over candidates of accuracy``, as a fraction.

    Each image gives one number, its outcome with the reference minus its mean outcome over the candidates; the
    interval is a percentile bootstrap of their mean over images. It speaks of other images of the same kind, with these
    very candidates: what other calibration seeds would give is not in it.

    Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        reference: (images,) of 0 or 1.
        candidates: (candidates, images) of 0 or 1; column i is the image of reference i.
        seed: Seed of the resampling.
        resamples: How many.
        level: Confidence.

    Raises:
        ValueError: The shapes do not fit.
    """
    first, others = np.asarray(reference, dtype=np.float64), np.asarray(candidates, dtype=np.float64)
    if first.ndim != 1 or others.ndim != 2 or others.shape[1] != first.size or 0 in others.shape:
        raise ValueError(f"expected (images,) and (candidates, images), got shapes {first.shape} and {others.shape}")
    differences = first - others.mean(axis=0)
    # Few distinct values occur, so a resample of the images is one draw of how often each of them occurs.
    values, counts = np.unique(differences.round(12), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(first.size, counts / first.size, size=resamples)
    low, high = np.percentile(drawn @ values / first.size, (50 * (1 - level), 50 * (1 + level)))
    return Interval(estimate=float(differences.mean()), low=float(low), high=float(high), level=level)
