"""Varies a batch of images with kornia, on the device that trains.

kornia is imported here and only when it is needed: it is slow to load, and most of edgekit does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekit.augmentation import Augmentation
from edgekit.errors import BackendMissing, UserError
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["Augmenter", "Mixing"]

Mixing = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Targets, the others' targets and shares (N,) in, mixed targets out."""


class Augmenter:
    """One augmentation for images of one size. Its randomness is torch's: seed that, and it repeats itself.

    Boxes, masks and points need no second implementation: kornia's sequence moves them with the images when it is told
    their kinds (``data_keys``).

    Args:
        augmentation: What is done.
        image: Size and pixel type.

    Raises:
        BackendMissing: kornia is not installed.
        UserError: A step needs to know which pixel is white, and float pixels do not say.
    """

    def __init__(self, augmentation: Augmentation, image: ImageInput) -> None:
        if augmentation.needs_full_scale and image.dtype == "float32":
            raise UserError(
                f"augmentation '{augmentation.name}' changes light or adds noise, which is measured from black to "
                "white, and the task's pixels are float32, whose white is not known",
                hint="choose one without brightness, contrast, gamma and noise_std",
            )
        self._mixup = augmentation.mixup
        steps = [] if augmentation.off else _steps(augmentation, image)
        self._sequence: Any = _sequence(steps) if steps else None

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor | None, mixing: Mixing
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns varied images, and their targets where those vary too.

        Args:
            images: (N, C, H, W) float32, shares of full scale.
            targets: One entry an image, or None.
            mixing: How the targets of two images become one.
        """
        with torch.no_grad():
            if self._sequence is not None:
                images = self._sequence(images)
            if self._mixup > 0:
                # One draw for each image; the larger part is its own, so that the order of a batch says which is which.
                beta = torch.distributions.Beta(self._mixup, self._mixup)
                share = beta.sample((len(images),)).to(images.device)
                share = torch.maximum(share, 1 - share)
                order = torch.randperm(len(images), device="cpu").to(images.device)
                part = share.reshape(-1, 1, 1, 1)
                images = part * images + (1 - part) * images[order]
                if targets is not None:
                    targets = mixing(targets, targets[order], share)
        return images, targets


def _steps(item: Augmentation, image: ImageInput) -> list[Any]:
    try:
        import kornia.augmentation as kornia
    except ImportError as error:
        raise BackendMissing(
            f"augmentation '{item.name}' needs kornia: {error}",
            hint="pip install 'edgekit[compile]', or train with augmentation 'none'",
        ) from error
    size = image.size
    steps: list[Any] = []
    if item.flip_horizontal:
        steps.append(kornia.RandomHorizontalFlip(p=item.flip_horizontal))
    if item.flip_vertical:
        steps.append(kornia.RandomVerticalFlip(p=item.flip_vertical))
    # Slices rather than a resampling of the whole batch: the same pixels, several times as fast on a CPU.
    if item.crop_padding:
        steps.append(kornia.RandomCrop(size, padding=item.crop_padding, p=1.0, cropping_mode="slice"))
    if item.crops:
        steps.append(
            kornia.RandomResizedCrop(size, scale=item.crop_area, ratio=item.crop_ratio, p=1.0, cropping_mode="slice")
        )
    if item.rotation_deg or item.translation or item.scale != (1.0, 1.0):
        shift = (item.translation, item.translation) if item.translation else None
        zoom = item.scale if item.scale != (1.0, 1.0) else None
        steps.append(kornia.RandomAffine(item.rotation_deg, translate=shift, scale=zoom, p=1.0))
    if item.brightness:
        steps.append(kornia.RandomBrightness(_around_one(item.brightness), p=1.0))
    if item.contrast:
        steps.append(kornia.RandomContrast(_around_one(item.contrast), p=1.0))
    if item.gamma:
        steps.append(kornia.RandomGamma(_around_one(item.gamma), p=1.0))
    if item.noise_std:
        steps.append(kornia.RandomGaussianNoise(std=item.noise_std, p=1.0))
    if item.cutout:
        side = item.cutout * min(size)
        share = side * side / (size[0] * size[1])
        steps.append(kornia.RandomErasing(scale=(share, share), ratio=(1.0, 1.0), p=1.0))
    return steps


def _sequence(steps: list[Any]) -> Any:
    import kornia.augmentation as kornia

    return kornia.AugmentationSequential(*steps, data_keys=["input"])


def _around_one(width: float) -> tuple[float, float]:
    return 1 - width, 1 + width
