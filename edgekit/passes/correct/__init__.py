"""Corrections of a quantized program against its float form: each kept only where it gains on held-out images."""

from edgekit.passes.correct.bias import CorrectBias
from edgekit.passes.correct.rounding import AdaptRounding

__all__ = ["AdaptRounding", "CorrectBias"]
