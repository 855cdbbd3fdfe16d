"""Typed loader of ``calibration/*.toml``: calibration recipes as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekit.config import nearest
from edgekit.datafiles import is_path, read_all, read_one
from edgekit.errors import ConfigError

__all__ = ["Corrections", "RangeMethod", "Ranges", "Recipe", "list_recipes", "load_recipe"]

RangeMethod = Literal["minmax", "percentile", "entropy", "mse", "search"]


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """How the range of a tensor is found. ``calibration/default.toml`` explains each key.

    Attributes:
        method: ``minmax``, ``percentile``, ``entropy``, ``mse``, or ``search``: of these four the one whose error,
            measured at the output of the tensor's consumers, is least.
        percentile: Share of the values kept by ``percentile``, in percent, on each side that has values.
        weights: ``minmax`` or ``mse``, per output channel.
        search_samples: Images on which ``search`` measures.
    """

    method: RangeMethod = "mse"
    percentile: float = 99.99
    weights: Literal["minmax", "mse"] = "minmax"
    search_samples: int = 16

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ConfigError(f"percentile: expected a number above 50 and up to 100, got {self.percentile}")
        if self.search_samples < 1:
            raise ConfigError(f"search_samples: expected at least 1, got {self.search_samples}")


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What is done against the error of int8 besides choosing ranges; each is kept only where it gained.

    Attributes:
        equalize: Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1): ``off``, ``depthwise``
            (chains with a depthwise convolution, which need it most) or ``all`` (every chain of two layers).
        smooth: Activation smoothing of linears after a layer norm (Xiao et al. 2022, arXiv:2211.10438).
        bias: ``off``, ``once`` (all layers in one pass, on float activations) or ``sequential`` (layer by layer, on the
            activations of the quantized network; Nagel et al. 2019, section 4.2).
        rounding: ``nearest``, or ``adaptive``: against each layer's float output (Nagel et al. 2020, arXiv:2004.10568;
            Frantar et al. 2022, arXiv:2210.17323).
        samples: Images that a correction is fitted on.
        held_out: Other images, on which it must gain to be kept.
    """

    equalize: Literal["off", "depthwise", "all"] = "depthwise"
    smooth: bool = True
    bias: Literal["off", "once", "sequential"] = "once"
    rounding: Literal["nearest", "adaptive"] = "nearest"
    samples: int = 32
    held_out: int = 16

    def __post_init__(self) -> None:
        for name in ("samples", "held_out"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is calibrated. ``calibration/default.toml`` explains each key.

    Attributes:
        name: Unique; the file's stem.
        title: One line for people.
        samples: Images used.
        sampling: Which images: ``stratified`` by class where labels exist, else random; ``random``; or ``first``.
        seed: Seed of the choice.
        batch_size: Images a forward pass, where the program has a dynamic batch.
        ranges: How ranges are found.
        corrections: What else is done.
    """

    name: str
    title: str
    samples: int = 300
    sampling: Literal["stratified", "random", "first"] = "stratified"
    seed: int = 0
    batch_size: int = 8
    ranges: Ranges = field(default_factory=Ranges)
    corrections: Corrections = field(default_factory=Corrections)

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size"):
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
