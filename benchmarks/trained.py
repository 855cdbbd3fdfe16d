"""The trained networks of the accuracy benchmark: how each is built, read, and told to the other tools."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.cifar import MODELS, TASK, float_pixels
from benchmarks.models.mobilenet_small import mobilenet_small
from benchmarks.models.resnet_cifar import resnet56
from benchmarks.models.vit_small import vit_small
from edgekit.data import Dataset, choose, iterate
from edgekit.evaluate import ReadImage
from edgekit.runtime.preprocess import resize_frame
from edgekit.runtime.tasks import load_spec
from edgekit.runtime.tasks.base import Spec
from edgekit.tasks import get_task
from examples.digits.model import digits_resnet

__all__ = [
    "NETWORKS",
    "Network",
    "calibration_pixels",
    "float_logits",
    "gray_pixels",
    "load_module",
    "read_all",
    "sha256",
]

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
_GRAY_MEAN, _GRAY_STD = 0.3, 0.35


def gray_pixels(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns an image (H, W, 1) as the digits network was trained on it, (1, 1, H, W); not with edgekit's code."""
    normalized = (image.astype(np.float32) / 255 - _GRAY_MEAN) / _GRAY_STD
    return np.ascontiguousarray(normalized.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Network:
    """One trained network.

    Attributes:
        title: For the table.
        build: Returns the untrained module.
        arch: The same, as ``edgekit.compile`` takes it.
        arch_path: Folder of ``arch``.
        checkpoint: Where it lies in this repository; None where it is given on the command line.
        task: Its task spec.
        pixels: From an image at the network's size to the module's input.
        cifar: Whether its images are CIFAR-10's; the digits' own are made by the example.
        nncf_preset: NNCF's documentation recommends ``mixed`` where activations are not ReLU; else its default.
        transformer: NNCF's documentation recommends its transformer scheme.
    """

    title: str
    build: Callable[[], nn.Module]
    arch: str
    arch_path: Path
    checkpoint: Path | None
    task: Path
    pixels: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    cifar: bool
    nncf_preset: str
    transformer: bool

    def spec(self) -> Spec:
        """Returns the task spec."""
        return load_spec(self.task)

    def images(self, root: Path) -> Dataset:
        """Lists the images of a folder, in path order."""
        spec = self.spec()
        return get_task(spec.task).read_data(root, spec)


NETWORKS: Mapping[str, Network] = {
    "resnet56": Network(
        title="ResNet-56",
        build=resnet56,
        arch="resnet_cifar:resnet56",
        arch_path=MODELS,
        checkpoint=None,
        task=TASK,
        pixels=float_pixels,
        cifar=True,
        nncf_preset="performance",
        transformer=False,
    ),
    "digits": Network(
        title="digits example",
        build=digits_resnet,
        arch="model:digits_resnet",
        arch_path=EXAMPLE,
        checkpoint=EXAMPLE / "digits.pt",
        task=EXAMPLE / "digits.toml",
        pixels=gray_pixels,
        cifar=False,
        nncf_preset="performance",
        transformer=False,
    ),
    "mobilenet_small": Network(
        title="MobileNet, small",
        build=mobilenet_small,
        arch="mobilenet_small:mobilenet_small",
        arch_path=MODELS,
        checkpoint=MODELS / "mobilenet_small.pt",
        task=TASK,
        pixels=float_pixels,
        cifar=True,
        nncf_preset="mixed",
        transformer=False,
    ),
    "vit_small": Network(
        title="ViT, small",
        build=vit_small,
        arch="vit_small:vit_small",
        arch_path=MODELS,
        checkpoint=MODELS / "vit_small.pt",
        task=TASK,
        pixels=float_pixels,
        cifar=True,
        nncf_preset="mixed",
        transformer=True,
    ),
}


def load_module(network: Network, checkpoint: Path) -> nn.Module:
    """Returns the trained network in torch, in evaluation mode, loaded without edgekit."""
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module = network.build()
    module.load_state_dict({name.removeprefix("module."): tensor for name, tensor in stored["state_dict"].items()})
    return module.eval()


def read_all(network: Network, dataset: Dataset) -> list[ReadImage]:
    """Reads images and brings them to the network's size, as the runtime does."""
    spec = network.spec().input
    frames = iterate(dataset, spec, max_bad_fraction=0.0)
    read = [
        ReadImage(sample=sample, pixels=resize_frame(frame, spec), frame_shape=frame.shape) for sample, frame in frames
    ]
    if frames.skipped:
        raise ValueError(f"images that cannot be read: {[image.brief for image in frames.skipped]}; repair them")
    return read


def calibration_pixels(network: Network, data: Path, *, samples: int, seed: int) -> list[npt.NDArray[np.float32]]:
    """Returns the calibration images, (1, C, H, W) each: those that edgekit takes with this seed."""
    chosen = choose(network.images(data), samples, sampling="stratified", seed=seed)
    return [network.pixels(image.pixels) for image in read_all(network, chosen)]


def float_logits(
    module: nn.Module, images: list[npt.NDArray[np.float32]], *, batch: int = 100
) -> Iterator[npt.NDArray[np.float32]]:
    """Runs images through a torch module in batches and yields the logits of each, (1, classes)."""
    with torch.no_grad():
        for start in range(0, len(images), batch):
            logits = module(torch.from_numpy(np.concatenate(images[start : start + batch]))).numpy()
            for row in logits:
                yield row[np.newaxis]


def sha256(path: Path) -> str:
    """Returns a file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
