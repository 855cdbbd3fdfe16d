"""What an engine's inputs and outputs look like, and what ran inside: words shared by compiler, bundle and runtime."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerRecord", "TensorSpec"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph or engine.

    Attributes:
        name: The name in the portable graph; the key in feeds and outputs.
        dtype: A numpy dtype name: ``uint8``, ``uint16``, ``float32``, ``int64``, ...
        shape: One entry per dimension; ``None`` stands for a dynamic one (only the batch, dimension 0, may be).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One layer as the backend executed it.

    Attributes:
        name: The layer's name in the portable graph where the backend keeps it.
        kind: The backend's word for it, such as ``Convolution`` or ``FullyConnected``.
        precision: What it ran in: ``int8``, ``bf16``, ``fp16``, ``fp32`` or another type's name.
        compute: Whether it is one of the arithmetic layers (convolution, deconvolution, fully connected, matrix
            product, recurrent) that quantization is about; the rest moves or reshapes data.
    """

    name: str
    kind: str
    precision: str
    compute: bool
