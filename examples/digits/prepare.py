"""Writes scikit-learn's handwritten digits as PNG files, one folder per class, in seeded splits.

    python examples/digits/prepare.py digits-images

The 1,797 digits of 8x8 pixels with values 0..16 are scaled to 0..255 and enlarged to frames of 48x48 pixels (OpenCV's
cubic filter). The network takes 32x32: the step between is the resize of ``digits.toml``, as with a real camera.

Splits, by sample, stratified by class: ``train`` (997 digits), ``val`` (200: the accuracy gate of the compiler) and
``test`` (600: nothing but the final evaluation). ``calib`` holds 300 digits of ``train``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

__all__ = ["FRAME_SIZE", "load_frames", "split_indices", "write_images"]

FRAME_SIZE = 48
SPLIT_SEED = 0


def load_frames() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns all digits as frames (1797, 48, 48) uint8, 0..255, with their labels (1797,)."""
    digits = load_digits()
    small = np.clip(np.asarray(digits.images) * 16, 0, 255).astype(np.uint8)
    frames = [cv2.resize(image, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_CUBIC) for image in small]
    return np.stack(frames).astype(np.uint8), np.asarray(digits.target, dtype=np.int64)


def split_indices(labels: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    """Returns the samples of each split: ``train``, ``calib`` (part of train), ``val`` and ``test``."""
    rest, test = train_test_split(np.arange(len(labels)), test_size=600, stratify=labels, random_state=SPLIT_SEED)
    train, val = train_test_split(rest, test_size=200, stratify=labels[rest], random_state=SPLIT_SEED)
    _, calib = train_test_split(train, test_size=300, stratify=labels[train], random_state=SPLIT_SEED)
    return {"train": np.sort(train), "calib": np.sort(calib), "val": np.sort(val), "test": np.sort(test)}


def write_images(root: Path) -> dict[str, int]:
    """Writes ``<split>/<class>/<sample>.png`` below ``root`` and returns the number of images of each split."""
    frames, labels = load_frames()
    splits = split_indices(labels)
    for split, indices in splits.items():
        for index in indices:
            path = root / split / str(labels[index]) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            done, data = cv2.imencode(".png", frames[index])
            if not done:
                raise RuntimeError(f"{path}: OpenCV cannot encode the image")
            path.write_bytes(data.tobytes())
    return {split: len(indices) for split, indices in splits.items()}


def main() -> None:
    """Reads the command line and writes the images."""
    parser = argparse.ArgumentParser(description="Write scikit-learn's handwritten digits as PNG files.")
    parser.add_argument("output", type=Path, help="folder to write")
    output: Path = parser.parse_args().output
    for split, count in write_images(output).items():
        print(f"{output / split}: {count} images")


if __name__ == "__main__":
    main()
