"""Intervals over what edgekit's own statistics do not cover: several processes, several calibration seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student  # type: ignore[import-untyped]

from edgekit.bench.statistics import Interval

__all__ = ["mean_drop_interval", "process_mean_interval", "process_ratio_interval", "recovered_interval"]


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
    reference: npt.ArrayLike,
    candidates: npt.ArrayLike,
    *,
    seed: int,
    across_seeds: bool = True,
    resamples: int = 20000,
    level: float = 0.95,
) -> Interval:
    """Estimates ``accuracy(reference) - accuracy(candidate)``, as a fraction, in the mean over calibration seeds.

    A percentile bootstrap. Images are drawn anew, and so, independently of them, are the seeds: it speaks of other
    images of the same kind and of other calibration images. With ``across_seeds=False`` it speaks of these very seeds.

    Source: A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007, for rows and columns that
    are both drawn; its variance is on average somewhat too large rather than too small.

    Args:
        reference: (images,) of 0 or 1, or (candidates, images): for each candidate its own, of the same seed.
        candidates: (candidates, images) of 0 or 1, one row per seed; column i is the image of reference i.
        seed: Seed of the resampling.
        across_seeds: Whether the seeds are drawn too.
        resamples: How many.
        level: Confidence.

    Raises:
        ValueError: The shapes do not fit.
    """
    first, others = np.asarray(reference, dtype=np.float64), np.asarray(candidates, dtype=np.float64)
    if first.ndim not in (1, 2) or others.ndim != 2 or 0 in others.shape or first.shape != others.shape[-first.ndim :]:
        raise ValueError(f"expected (images,) and (candidates, images), got shapes {first.shape} and {others.shape}")
    differences = first - others
    seeds, images = differences.shape
    generator = np.random.default_rng(seed)
    # Few columns differ, so a resample of the images is one draw of how often each kind of column occurs.
    kinds, counts = np.unique(differences, axis=1, return_counts=True)
    drawn = generator.multinomial(images, counts / images, size=resamples) / images
    weights = np.full((resamples, seeds), 1 / seeds)
    if across_seeds:
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    means = ((drawn @ kinds.T) * weights).sum(axis=1)
    low, high = np.percentile(means, (50 * (1 - level), 50 * (1 + level)))
    return Interval(estimate=float(differences.mean()), low=float(low), high=float(high), level=level)


def recovered_interval(
    before: npt.ArrayLike, after: npt.ArrayLike, *, seed: int, resamples: int = 5000, level: float = 0.95
) -> Interval:
    """Estimates which share of a loss is gone: ``1 - mean(after) / mean(before)``, over images and seeds.

    A percentile bootstrap that draws images and, independently of them, seeds anew, as :func:`mean_drop_interval` does;
    both sides are drawn together.

    Args:
        before, after: (seeds, images) of the loss, zero or more; the same images in each column.
        seed: Seed of the resampling.
        resamples: How many.
        level: Confidence.

    Raises:
        ValueError: The shapes do not fit, or nothing was lost before.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.ndim != 2 or 0 in first.shape or first.shape != second.shape:
        raise ValueError(f"expected (seeds, images) twice, got shapes {first.shape} and {second.shape}")
    if not first.mean() > 0:
        raise ValueError(f"expected a loss before, got a mean of {first.mean()}")
    seeds, images = first.shape
    generator = np.random.default_rng(seed)
    shares = np.empty(resamples)
    for number in range(resamples):
        columns = generator.multinomial(images, np.full(images, 1 / images))
        rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds))
        lost = rows @ (first @ columns)
        shares[number] = 1 - (rows @ (second @ columns)) / lost if lost > 0 else 0.0
    low, high = np.percentile(shares, (50 * (1 - level), 50 * (1 + level)))
    return Interval(estimate=float(1 - second.mean() / first.mean()), low=float(low), high=float(high), level=level)
