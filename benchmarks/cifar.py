"""What the ResNet-56 benchmarks share: checkpoint, images and network, given on the command line."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import edgekit
from benchmarks.models.resnet_cifar import resnet56
from edgekit.compiler import CompileReport
from edgekit.data import Dataset
from edgekit.runtime.tasks import load_spec
from edgekit.runtime.tasks.base import Spec
from edgekit.tasks import get_task

__all__ = [
    "CALIBRATION_IMAGES",
    "MEAN",
    "MODELS",
    "STD",
    "TASK",
    "add_inputs",
    "compile_checkpoint",
    "describe_images",
    "describe_inputs",
    "float_module",
    "float_pixels",
    "read_images",
    "read_spec",
]

MODELS = Path(__file__).resolve().parent / "models"
TASK = MODELS / "cifar10.toml"
CALIBRATION_IMAGES = 300

MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)


def add_inputs(parser: argparse.ArgumentParser, *, test: bool) -> None:
    """Adds the options for what comes from outside."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="resnet56-4bfd9763.th")
    parser.add_argument("--data", type=Path, required=True, help="training images: one folder per class")
    if test:
        parser.add_argument("--test", type=Path, required=True, help="test images: one folder per class")


def describe_inputs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what identifies the checkpoint and the images, without a path of this machine."""
    facts: dict[str, Any] = {
        "checkpoint": arguments.checkpoint.name,
        "checkpoint_sha256": hashlib.sha256(arguments.checkpoint.read_bytes()).hexdigest(),
    }
    for name in ("data", "test"):
        if hasattr(arguments, name):
            facts |= describe_images(name, getattr(arguments, name))
    return facts


def describe_images(name: str, root: Path) -> dict[str, Any]:
    """Returns what identifies the images of a folder: their number and a digest of their files in path order."""
    files = [sample.path for sample in read_images(root).samples]
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return {f"{name}_images": len(files), f"{name}_sha256": digest.hexdigest()}


def read_spec() -> Spec:
    """Returns the task spec."""
    return load_spec(TASK)


def read_images(root: Path) -> Dataset:
    """Lists the images of a folder, in path order."""
    return get_task("classification").read_data(root, read_spec())


def compile_checkpoint(
    checkpoint: Path,
    data: Path,
    output: Path,
    *,
    precision: str,
    seed: int,
    samples: int = CALIBRATION_IMAGES,
    max_eval: int = 500,
    target: str = "x86-cpu",
    max_drop: float = 1.0,
) -> CompileReport:
    """Compiles as a user does: from the checkpoint as it is, with the default recipe."""
    return edgekit.compile(
        checkpoint,
        arch="resnet_cifar:resnet56",
        arch_path=MODELS,
        task=TASK,
        data=data,
        target=target,
        max_drop=max_drop,
        precision=precision,  # type: ignore[arg-type]
        seed=seed,
        samples=samples,
        max_eval=max_eval,
        timing=False,
        output=output,
    )


def float_module(checkpoint: Path) -> nn.Module:
    """Returns the trained network in torch, in evaluation mode, loaded without edgekit."""
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module = resnet56()
    module.load_state_dict({name.removeprefix("module."): tensor for name, tensor in stored["state_dict"].items()})
    return module.eval()


def float_pixels(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns a BGR image (H, W, 3) as the network was trained on it, (1, 3, H, W); without edgekit's arithmetic."""
    normalized = (image[..., ::-1].astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
