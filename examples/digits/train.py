"""Trains the digits network and writes its checkpoint: the script that made ``digits.pt``.

    python examples/digits/train.py --output examples/digits/digits.pt

Seeded; half a minute on two CPU cores. Only the ``train`` split is seen in training; ``val`` and ``test`` are measured
once, at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from model import digits_resnet
from prepare import load_frames, split_indices
from torch import nn

__all__ = ["accuracy", "augment", "model_inputs", "train"]

MODEL_SIZE = 32
MEAN, STD = 0.3, 0.35  # of pixels in 0..1; the numbers of digits.toml


def model_inputs(frames: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Turns frames (N, H, W) uint8 into the network's input (N, 1, 32, 32) float32, as ``digits.toml`` describes it."""
    size = (MODEL_SIZE, MODEL_SIZE)
    resized = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames])
    return (torch.from_numpy(resized).float().unsqueeze(1) / 255.0 - MEAN) / STD


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turns each image by up to 10 degrees, scales it by up to 10 %, and moves it by up to 3 pixels."""
    count = len(batch)
    angle = (torch.rand(count, generator=generator) * 2 - 1) * np.deg2rad(10.0)
    scale = 1 + (torch.rand(count, generator=generator) * 2 - 1) * 0.1
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * (3 / (MODEL_SIZE / 2))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = nn.functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return nn.functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def train(
    images: torch.Tensor, labels: torch.Tensor, *, epochs: int, batch_size: int, learning_rate: float, seed: int
) -> nn.Module:
    """Trains a new network with SGD and a one-cycle learning rate, and returns it in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = digits_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(steps):
            picked = order[step * batch_size : (step + 1) * batch_size]
            loss = criterion(model(augment(images[picked], generator)), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2d}/{epochs}: loss {total / steps:.4f}", flush=True)
    return model.eval()


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Returns the share of images whose best-scored class is the label."""
    with torch.inference_mode():
        return float((model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Reads the command line, trains, writes the checkpoint and prints what it reached."""
    parser = argparse.ArgumentParser(description="Train the digits network.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("digits.pt"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    started = time.perf_counter()
    frames, targets = load_frames()
    splits = split_indices(targets)
    images, labels = model_inputs(frames), torch.from_numpy(targets)
    model = train(
        images[splits["train"]],
        labels[splits["train"]],
        epochs=arguments.epochs,
        batch_size=32,
        learning_rate=0.1,
        seed=arguments.seed,
    )
    torch.save({"state_dict": model.state_dict()}, arguments.output)
    for split in ("train", "val", "test"):
        reached = accuracy(model, images[splits[split]], labels[splits[split]])
        print(f"{split} top-1 accuracy: {100 * reached:.2f} % of {len(splits[split])} images")
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size} bytes, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
