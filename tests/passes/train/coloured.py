"""A small folder of noisy colours, which tiny networks learn in a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgekit.data import Dataset, read_folder
from tests.networks import LABELS

_BGR = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "gray": (128, 128, 128)}


def coloured(folder: Path, count: int = 10, *, seed: int = 0, size: int = 16, labelled: bool = True) -> Dataset:
    """``count`` images of each class; without labels they lie in one flat folder."""
    generator = np.random.default_rng(seed)
    for label in LABELS:
        for index in range(count):
            clean = np.array(_BGR[label]) * generator.uniform(0.5, 1)
            image = np.clip(clean + generator.normal(0, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            path = folder / label / f"{index}.png" if labelled else folder / f"{label}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    return read_folder(folder, LABELS)
