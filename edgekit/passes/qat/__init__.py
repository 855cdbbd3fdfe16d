"""Quantization-aware training: the quantized program goes on learning, its steps included."""

from edgekit.passes.qat.options import QatOptions
from edgekit.passes.qat.qat import Qat, qat
from edgekit.passes.qat.trainable import baked, trainable

__all__ = ["Qat", "QatOptions", "baked", "qat", "trainable"]
