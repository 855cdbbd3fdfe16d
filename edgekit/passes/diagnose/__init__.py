"""Diagnostics: where a quantized program departs from its float form, layer by layer, and which layer to blame."""

from edgekit.passes.diagnose.diagnose import Diagnosis, LayerNoise, OutputNoise, diagnose

__all__ = ["Diagnosis", "LayerNoise", "OutputNoise", "diagnose"]
