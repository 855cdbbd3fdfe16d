"""Pictures that nobody has to download: clouds of several sizes, coloured, with a few hard-edged shapes in front."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
import torch.nn.functional as F

__all__ = ["MEAN", "STD", "normalized", "pictures", "write_pictures"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of the photographs of ImageNet, RGB in 0..1: what the networks expect to be normalized with."""


def pictures(count: int, size: tuple[int, int], *, seed: int) -> torch.Tensor:
    """Returns (count, 3, H, W) uint8 RGB; the amplitude of the clouds falls as their size, as in photographs.

    Source: D. J. Field, "Relations between the statistics of natural images and the response properties of cortical
    cells" (1987): the amplitude spectrum of natural images falls about as 1 / frequency.

    Args:
        count: How many.
        size: (height, width).
        seed: Picture i of a seed does not depend on ``count``.
    """
    return torch.stack([_picture(size, _generator(seed, index)) for index in range(count)])


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Returns uint8 RGB images as float32, with the mean and deviation that networks for photographs expect."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def write_pictures(folder: Path, count: int, size: tuple[int, int], *, seed: int) -> None:
    """Writes pictures as PNG files into a folder of their own; files that are there already are left."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"{seed}-{index:05d}.png"
        if not path.exists():
            image = _picture(size, _generator(seed, index)).permute(1, 2, 0).numpy()
            cv2.imwrite(str(path), image[..., ::-1])


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + index)


def _picture(size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    height, width = size
    image = torch.zeros(1, 3, height, width)
    cells = 2
    while cells <= min(size) // 2:
        gray = torch.randn(1, 1, cells, cells, generator=generator)
        colour = torch.randn(1, 3, cells, cells, generator=generator)
        image += F.interpolate(gray + 0.4 * colour, size, mode="bicubic") * (2 / cells)
        cells *= 2
    image = image[0] / image.std()
    for _ in range(int(torch.randint(2, 7, (), generator=generator))):
        top, left = (int(torch.randint(0, edge - 4, (), generator=generator)) for edge in size)
        down, right = (int(torch.randint(4, edge // 2, (), generator=generator)) for edge in size)
        image[:, top : top + down, left : left + right] += torch.randn(3, 1, 1, generator=generator)
    contrast, brightness = torch.rand(2, generator=generator).tolist()
    image = 0.3 + 0.4 * brightness + (0.08 + 0.2 * contrast) * image
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
