"""Typed loader of ``augmentation/*.toml``: how training images are varied, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from edgekit.config import nearest
from edgekit.datafiles import is_path, read_all, read_one
from edgekit.errors import ConfigError

__all__ = ["Augmentation", "list_augmentations", "load_augmentation"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How images are varied while a network trains. ``augmentation/photo.toml`` explains each key.

    Images are varied at the model's size, in the units of the pixels over their full scale (0..1), before mean and
    std. The order is: flips, crop, affine, brightness, contrast, gamma, noise, cutout, mixup.

    Attributes:
        name: Unique; the file's stem.
        title: One line for people.
        flip_horizontal, flip_vertical: Probability of each flip.
        crop_padding: Pixels of black border on each side, of which a window of the model's size is cut (He et al. 2016,
            section 4.2); 0 is off.
        crop_area: Smallest and largest share of the image's area that a crop keeps before it is scaled back to the
            model's size (Szegedy et al. 2015, section 6); ``[1, 1]`` is off.
        crop_ratio: Smallest and largest ratio of a crop's sides, for ``crop_area``.
        rotation_deg: Rotation by up to this angle, both ways.
        translation: Shift by up to this share of the sides, both ways.
        scale: Smallest and largest magnification.
        brightness: Up to this is added or taken away, of full scale.
        contrast: Pixels are multiplied by 1 plus or minus up to this.
        gamma: Exponent of 1 plus or minus up to this.
        noise_std: Standard deviation of Gaussian noise, of full scale.
        cutout: Side of a square that is blackened, over the image's shorter side (DeVries and Taylor 2017); 0 is off.
        mixup: Both parameters of the Beta distribution from which the share of a second image is drawn (Zhang et al.
            2018, section 2); 0 is off.
    """

    name: str
    title: str
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    crop_padding: int = 0
    crop_area: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    rotation_deg: float = 0.0
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise_std: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_horizontal", "flip_vertical", "translation", "brightness", "contrast", "cutout"):
            _between(name, getattr(self, name), 0.0, 1.0)
        _between("gamma", self.gamma, 0.0, 0.9)
        _between("rotation_deg", self.rotation_deg, 0.0, 180.0)
        for name in ("crop_padding", "noise_std", "mixup"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("crop_area", "crop_ratio", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name}: expected [smallest, largest] above 0, got {[low, high]}")
        if self.crop_area[1] > 1:
            raise ConfigError(f"crop_area: expected a share of up to 1, got {self.crop_area[1]}")
        if self.crop_padding and self.crops:
            raise ConfigError("crop_padding and crop_area are two ways to crop", hint="leave one of them out")

    @property
    def crops(self) -> bool:
        """Whether crops are cut and scaled back."""
        return self.crop_area != (1.0, 1.0)

    @property
    def needs_full_scale(self) -> bool:
        """Whether a step needs to know which pixel value is white."""
        return any((self.brightness, self.contrast, self.gamma, self.noise_std))

    @property
    def off(self) -> bool:
        """Whether images are left as they are."""
        still = Augmentation(name=self.name, title=self.title, crop_ratio=self.crop_ratio)
        return all(getattr(self, item.name) == getattr(still, item.name) for item in fields(self))


def list_augmentations() -> tuple[Augmentation, ...]:
    """Returns every known augmentation, by name: those that ship, and those of ``EDGEKIT_AUGMENTATION``.

    Raises:
        ConfigError: A file is wrong, or two augmentations share a name.
    """
    return read_all(Augmentation, "augmentation", variable="EDGEKIT_AUGMENTATION")


def load_augmentation(name: str | Path) -> Augmentation:
    """Returns one augmentation.

    Args:
        name: Its name, or the path of a TOML file.

    Raises:
        ConfigError: No such augmentation (the hint names the nearest), or a file is wrong.
    """
    if is_path(name):
        return read_one(Augmentation, Path(name))
    known = {item.name: item for item in list_augmentations()}
    if str(name) not in known:
        raise ConfigError(f"unknown augmentation '{name}'", hint=nearest(str(name), known))
    return known[str(name)]


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {value}")
