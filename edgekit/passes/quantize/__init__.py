"""int8 quantization: policy (where), observers (statistics), grids (integers) and insertion, apart."""

from edgekit.passes.quantize.quantize import Quantize

__all__ = ["Quantize"]
