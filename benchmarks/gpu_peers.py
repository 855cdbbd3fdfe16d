"""What runs ResNet-56 on the GPU beside edgekit, each doing the same job: raw uint8 image in, logits out, on the host.

torch: the float network with the preprocessing in front, in half precision, channels last, compiled by
``torch.compile`` with ``mode="max-autotune"``, which uses CUDA graphs; the image lies in page-locked memory.

ONNX Runtime: the bundle's own fp16 graph with the CUDA provider, called by ``run``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.cifar import MEAN, STD

__all__ = ["MissingPeer", "onnxruntime_call", "torch_call"]

Image = npt.NDArray[np.uint8]
Call = Callable[[], npt.NDArray[np.float32]]


class MissingPeer(Exception):
    """A peer that is not here; says why."""


class _FromImage(nn.Module):
    """The network behind the arithmetic that edgekit folds into its engine."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.from_numpy(255 * MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.from_numpy(255 * STD).reshape(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps (1, H, W, 3) uint8 BGR to logits (1, classes)."""
        pixels = image.permute(0, 3, 1, 2).flip(1).to(self.mean.dtype)
        logits: torch.Tensor = self.network((pixels - self.mean) / self.std)
        return logits.float()


def torch_call(network: nn.Module, image: Image, *, device: str = "cuda", compiler: str = "inductor") -> Call:
    """Returns the timed call of torch.

    Args:
        network: Float, in evaluation mode; is changed.
        image: (1, H, W, 3) uint8 BGR.
        device: Where it runs; on the CPU in float32.
        compiler: Backend of ``torch.compile``.

    Raises:
        MissingPeer: torch has no CUDA here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingPeer(f"torch {torch.__version__} finds no GPU: a build with CUDA is needed")
    dtype = torch.float16 if device == "cuda" else torch.float32
    module = _FromImage(network).to(device, dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    mode = "max-autotune" if compiler == "inductor" else None
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(module, backend=compiler, mode=mode)
    host = torch.from_numpy(image)
    if device == "cuda":
        host = host.pin_memory()

    def call() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = compiled(host.to(device, non_blocking=True)).cpu().numpy()
            return logits

    return call


def onnxruntime_call(graph: bytes | Path, image: Image, *, provider: str = "CUDAExecutionProvider") -> Call:
    """Returns the timed call of ONNX Runtime.

    Args:
        graph: The fp16 graph, which takes the image.
        image: (1, H, W, 3) uint8 BGR.
        provider: Where it runs.

    Raises:
        MissingPeer: ONNX Runtime, or the provider, is not here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPeer(f"ONNX Runtime cannot be imported: {error}") from error
    if provider not in onnxruntime.get_available_providers():
        raise MissingPeer(f"ONNX Runtime {onnxruntime.__version__} was built without its {provider}")
    data = graph.read_bytes() if isinstance(graph, Path) else graph
    session = onnxruntime.InferenceSession(data, providers=[provider])
    # It goes on with the CPU where the provider's libraries do not load.
    if session.get_providers()[0] != provider:
        raise MissingPeer(f"ONNX Runtime {onnxruntime.__version__} does not load its {provider}")
    name = session.get_inputs()[0].name

    def call() -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = session.run(None, {name: image})[0]
        return logits

    return call
