"""int8 quantization: policy (where), observers (statistics), schemes (integers), insertion and corrections, apart."""

from edgekit.passes.quantize.quantize import Quantize

__all__ = ["Quantize"]
