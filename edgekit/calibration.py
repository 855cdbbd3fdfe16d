"""Typed loader of ``calibration/*.toml``: how ranges are found, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.errors import ConfigError

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One calibration recipe.

    Attributes:
        name: Unique; the file's stem.
        title: One sentence on when to use it.
        method: ``minmax`` or ``mse`` (range that minimises the squared quantization error, from a streamed histogram).
        samples: Images used for calibration.
        sampling: ``stratified`` by class where labels exist (``random`` otherwise), ``random``, or ``first``.
        seed: Seed of the sampling.
        bias_correction: Add ``E[conv(x, W - Wq)]`` to each bias (Nagel et al. 2019, arXiv:1906.04721, section 4.2).
        bias_samples: Images used for the bias correction.
        batch_size: Images a forward pass, where the program has a dynamic batch.
    """

    name: str
    title: str
    method: Literal["minmax", "mse"]
    samples: int = 300
    sampling: Literal["stratified", "random", "first"] = "stratified"
    seed: int = 0
    bias_correction: bool = True
    bias_samples: int = 64
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("samples", "bias_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
