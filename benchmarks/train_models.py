"""Trains the two small networks of the accuracy benchmark: the script that made their checkpoints.

    python -m benchmarks.train_models mobilenet_small vit_small --data train --out benchmarks/models

Seeded, on one thread: some 14 and 8 minutes. 1,000 of the training images are held back: training does not see
them, recipes and options are chosen on them. The test images are not touched. Writes NAME.pt, the state dict, and
NAME.json, how it was made and what it reaches on the images held back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.cifar import float_pixels, read_images, read_spec
from benchmarks.models.mobilenet_small import mobilenet_small
from benchmarks.models.vit_small import vit_small
from benchmarks.splits import split_images
from edgekit.data import Dataset, iterate

__all__ = ["TRAINED", "Recipe", "augment", "learning_rate", "train"]

_BORDER = 4  # pixels by which an image is moved at most


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    batch_size: int
    peak_rate: float
    weight_decay: float
    label_smoothing: float = 0.1
    warm_up: float = 0.1
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is built and trained."""

    build: Callable[[], nn.Module]
    recipe: Recipe


TRAINED: Mapping[str, Training] = {
    "mobilenet_small": Training(
        build=mobilenet_small, recipe=Recipe(epochs=22, batch_size=64, peak_rate=4e-3, weight_decay=0.02)
    ),
    "vit_small": Training(build=vit_small, recipe=Recipe(epochs=15, batch_size=64, peak_rate=2e-3, weight_decay=0.05)),
}


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Returns the rate at a share of the steps: it rises evenly during the warm-up, then falls as a half cosine."""
    if progress < recipe.warm_up:
        return recipe.peak_rate * progress / recipe.warm_up
    return recipe.peak_rate * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warm_up) / (1 - recipe.warm_up)))


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors half of the images (N, 3, H, W) and moves each by up to 4 pixels; zeros come in at the border."""
    count, _, height, width = batch.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    padded = F.pad(batch, (_BORDER,) * 4)
    corners = torch.randint(0, 2 * _BORDER + 1, (2, count), generator=generator).tolist()
    return torch.stack(
        [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(zip(*corners, strict=True))]
    )


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> None:
    """Trains with AdamW; biases, norms and positions do not decay."""
    generator = torch.Generator().manual_seed(recipe.seed)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1 and parameter.shape[0] > 1]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak_rate, fused=True)
    steps = len(images) // recipe.batch_size
    model.to(memory_format=torch.channels_last)
    model.train()
    for epoch in range(recipe.epochs):
        order, total, started = torch.randperm(len(images), generator=generator), 0.0, time.perf_counter()
        for step in range(steps):
            picked = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = augment(images[picked], generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), labels[picked], label_smoothing=recipe.label_smoothing)
            rate = learning_rate(recipe, (epoch * steps + step + 1) / (recipe.epochs * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        spent = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{recipe.epochs}: loss {total / steps:.4f}, {spent:.0f} s", flush=True)
    model.eval()


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Returns the share of images whose best-scored class is the label."""
    with torch.no_grad():
        answers = torch.cat([model(batch).argmax(1) for batch in images.split(250)])
    return float((answers == labels).float().mean())


def _decoded(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads images, normalized (N, 3, 32, 32) float32, and their labels (N,)."""
    frames = list(iterate(dataset, read_spec().input, max_bad_fraction=0.0))
    pixels: list[npt.NDArray[np.float32]] = [float_pixels(frame) for _, frame in frames]
    return torch.from_numpy(np.concatenate(pixels)), torch.tensor([sample.label for sample, _ in frames])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(TRAINED), help="networks")
    parser.add_argument("--data", type=Path, required=True, help="training images: one folder per class")
    parser.add_argument("--out", type=Path, required=True, help="folder for NAME.pt and NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    kept, held = split_images(read_images(options.data))
    (images, labels), (held_images, held_labels) = _decoded(kept), _decoded(held)
    for name in options.names:
        started = time.perf_counter()
        torch.manual_seed(TRAINED[name].recipe.seed)
        model = TRAINED[name].build()
        train(model, images, labels, TRAINED[name].recipe)
        path = options.out / f"{name}.pt"
        state = {key: tensor.contiguous().clone() for key, tensor in model.state_dict().items()}
        torch.save({"state_dict": state}, path)
        facts = {
            "network": name,
            "recipe": asdict(TRAINED[name].recipe),
            "trained_on": len(kept),
            "held_back": len(held),
            "top1_held_back": accuracy(model, held_images, held_labels),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "torch": metadata.version("torch"),
        }
        (options.out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        spent = time.perf_counter() - started
        print(
            f"{name}: top-1 {100 * facts['top1_held_back']:.2f} % of {len(held)} held back, {spent:.0f} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
