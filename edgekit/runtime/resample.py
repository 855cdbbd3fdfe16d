"""Pillow's resampling, with numpy only: models trained on Pillow images see the same pixels on the device.

Pillow resizes in two separable passes, with a filter whose support widens with the shrink factor. On 8-bit images the
weights are rounded to fixed point and the result of each pass is rounded to 8 bits; both are reproduced here, in
float64, where those integer sums are exact: the result on 8-bit images equals Pillow's.

Source: Pillow 13.0, ``src/libImaging/Resample.c`` (``precompute_coeffs``, ``normalize_coeffs_8bpc``,
``ImagingResampleInner``) and ``src/libImaging/Geometry.c`` (``ImagingScaleAffine``, for nearest).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Filter", "Span", "resample"]

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Frame = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

_PRECISION_BITS = 32 - 8 - 2
_BLOCK = 16
# OpenBLAS starts threads above 2^18 multiply-adds; they would fight with the engine's own, so products are kept below.
_PRODUCT_LIMIT = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Span:
    """One axis of a resize: ``source`` pixels become ``target`` pixels, of which ``[start, stop)`` are wanted."""

    source: int
    target: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A run of target pixels ``[start, stop)`` (counted from the span's start) with the source pixels they draw from.

    Attributes:
        weights: (source pixels, target pixels).
    """

    first: int
    last: int
    start: int
    stop: int
    weights: Float64 = field(repr=False)


def resample(frame: Frame, *, rows: Span, columns: Span, filter: Filter) -> Frame:
    """Resizes as ``PIL.Image.resize((columns.target, rows.target), filter)`` and keeps the wanted window.

    Args:
        frame: (H, W) or (H, W, C), uint8, uint16 or float32; H and W are the spans' sources.
        rows: The vertical axis.
        columns: The horizontal axis.
        filter: Pillow's filter of that name.

    Returns:
        (rows.stop - rows.start, columns.stop - columns.start[, C]), contiguous, of the frame's dtype. Integers are
        rounded half up and clipped to the dtype's range; float32 is neither rounded nor clipped.
    """
    if filter == "nearest":
        return np.take(np.take(frame, _nearest(rows), axis=0), _nearest(columns), axis=1)
    out = np.empty((rows.stop - rows.start, columns.stop - columns.start, *frame.shape[2:]), dtype=frame.dtype)
    if frame.ndim == 2:
        _plane(frame, out, rows, columns, filter)
    else:
        for channel in range(frame.shape[2]):
            _plane(frame[:, :, channel], out[:, :, channel], rows, columns, filter)
    return out


def _plane(source: Frame, target: Frame, rows: Span, columns: Span, filter: Filter) -> None:
    fixed = source.dtype == np.uint8
    vertical, horizontal = _blocks(rows, filter, fixed), _blocks(columns, filter, fixed)
    top, bottom = _drawn_from(rows, vertical)
    left, right = _drawn_from(columns, horizontal)
    values = source[top:bottom, left:right].astype(np.float64)
    # Pillow 13's order; older ones always went across first, which differs by rounding on frames that it applies to.
    shrink = rows.source - rows.target
    down_first = shrink > 0 and shrink > 2 * (columns.source - columns.target)
    if down_first:
        values = _down(values, vertical, top, source.dtype)
    values = _across(values, horizontal, left, source.dtype)
    if not down_first:
        values = _down(values, vertical, top, source.dtype)
    target[...] = values


def _drawn_from(span: Span, blocks: tuple[_Block, ...] | None) -> tuple[int, int]:
    """Returns the range of source pixels that the wanted target pixels need."""
    if blocks is None:
        return span.start, span.stop
    return min(block.first for block in blocks), max(block.last for block in blocks)


def _across(values: Float64, blocks: tuple[_Block, ...] | None, left: int, dtype: np.dtype[Any]) -> Float64:
    if blocks is None:
        return values
    out = np.empty((len(values), blocks[-1].stop), dtype=np.float64)
    step = _step(blocks)
    for start in range(0, len(values), step):
        part, strip = values[start : start + step], out[start : start + step]
        for block in blocks:
            window = part[:, block.first - left : block.last - left]
            np.matmul(window, block.weights, out=strip[:, block.start : block.stop])
    return _rounded(out, dtype)


def _down(values: Float64, blocks: tuple[_Block, ...] | None, top: int, dtype: np.dtype[Any]) -> Float64:
    if blocks is None:
        return values
    out = np.empty((blocks[-1].stop, values.shape[1]), dtype=np.float64)
    step = _step(blocks)
    for start in range(0, values.shape[1], step):
        part, strip = values[:, start : start + step], out[:, start : start + step]
        for block in blocks:
            window = part[block.first - top : block.last - top]
            np.matmul(block.weights.T, window, out=strip[block.start : block.stop])
    return _rounded(out, dtype)


def _step(blocks: tuple[_Block, ...]) -> int:
    """Returns how many rows or columns to take at once."""
    return max(1, _PRODUCT_LIMIT // max(block.weights.size for block in blocks))


def _rounded(values: Float64, dtype: np.dtype[Any]) -> Float64:
    """Rounds half up and clips, in place, to what an integer dtype can hold."""
    if dtype.kind == "f":
        return values
    values += 0.5
    np.floor(values, out=values)
    np.clip(values, 0, np.iinfo(dtype).max, out=values)
    return values


@lru_cache(maxsize=64)
def _blocks(span: Span, filter: Filter, fixed: bool) -> tuple[_Block, ...] | None:
    """Returns the banded weight matrix of one axis as dense blocks, or None where the axis keeps its size.

    Args:
        span: The axis.
        filter: The filter's name.
        fixed: Round the weights to Pillow's fixed point (8-bit images).
    """
    if span.source == span.target:
        return None
    bounds, taps = _coefficients(span, filter)
    if fixed:
        taps = np.trunc(taps * (1 << _PRECISION_BITS) + np.copysign(0.5, taps)) / (1 << _PRECISION_BITS)
    blocks = []
    for start in range(0, len(bounds), _BLOCK):
        part = bounds[start : start + _BLOCK]
        first, last = min(low for low, _ in part), max(high for _, high in part)
        weights = np.zeros((last - first, len(part)), dtype=np.float64)
        for index, (low, high) in enumerate(part):
            weights[low - first : high - first, index] = taps[start + index, : high - low]
        weights.setflags(write=False)
        blocks.append(_Block(first=first, last=last, start=start, stop=start + len(part), weights=weights))
    return tuple(blocks)


def _coefficients(span: Span, filter: Filter) -> tuple[list[tuple[int, int]], Float64]:
    """Returns for each wanted target pixel its source range and its weights, which sum to one."""
    function, radius = _filter(filter)
    scale = span.source / span.target
    widened = max(scale, 1.0)
    support = radius * widened
    taps = np.zeros((span.stop - span.start, math.ceil(support) * 2 + 1), dtype=np.float64)
    bounds = []
    for index, pixel in enumerate(range(span.start, span.stop)):
        center = (pixel + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), span.source)
        weights = function((np.arange(low, high, dtype=np.float64) - center + 0.5) / widened)
        total = weights.sum()
        taps[index, : high - low] = weights / total if total != 0.0 else weights
        bounds.append((low, high))
    return bounds, taps


@lru_cache(maxsize=64)
def _nearest(span: Span) -> npt.NDArray[np.intp]:
    # The running sum, rather than a product, reproduces Pillow's rounding at exact halves.
    step = span.source / span.target
    increments = np.full(span.target, step, dtype=np.float64)
    increments[0] = step * 0.5
    index = np.minimum(np.cumsum(increments).astype(np.intp), span.source - 1)[span.start : span.stop]
    index.setflags(write=False)
    return index


def _filter(name: Filter) -> tuple[Callable[[Float64], Float64], float]:
    """Returns a filter with the radius of its support, in source pixels at scale one."""
    if name == "bilinear":
        return _triangle, 1.0
    if name == "bicubic":
        return _cubic, 2.0
    return _lanczos, 3.0


def _triangle(x: Float64) -> Float64:
    return np.clip(1.0 - np.abs(x), 0.0, None)


def _cubic(x: Float64) -> Float64:
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Float64) -> Float64:
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3.0), 0.0).astype(np.float64)
