"""The signal-to-noise ratio of a quantized network's answers."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["sqnr_db"]


def sqnr_db(reference: np.ndarray, answers: np.ndarray) -> float:
    """Returns the ratio of signal to quantization noise in decibels, over all images and values together."""
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - answers).sum())
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)
