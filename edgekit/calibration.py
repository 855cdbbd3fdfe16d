"""Typed loader of ``calibration/*.toml``: how ranges are found, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.config import nearest
from edgekit.datafiles import is_path, read_all, read_one
from edgekit.errors import ConfigError

__all__ = ["Recipe", "list_recipes", "load_recipe"]


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


def list_recipes() -> tuple[Recipe, ...]:
    """Returns every known recipe, by name: those that ship with edgekit, and those of ``EDGEKIT_CALIBRATION``.

    Raises:
        ConfigError: A file is wrong, or two recipes share a name.
    """
    return read_all(Recipe, "calibration", variable="EDGEKIT_CALIBRATION")


def load_recipe(name: str | Path) -> Recipe:
    """Returns one recipe.

    Args:
        name: Its name, or the path of a TOML file.

    Raises:
        ConfigError: No such recipe (the hint names the nearest), or a file is wrong.
    """
    if is_path(name):
        return read_one(Recipe, Path(name))
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if str(name) not in recipes:
        raise ConfigError(f"unknown recipe '{name}'", hint=nearest(str(name), recipes))
    return recipes[str(name)]
