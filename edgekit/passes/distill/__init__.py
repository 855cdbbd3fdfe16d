"""Distillation of a program into another of the same interface."""

from edgekit.passes.distill.distill import Distill, distill
from edgekit.passes.distill.objective import Distillation
from edgekit.passes.distill.options import DistillOptions

__all__ = ["Distill", "DistillOptions", "Distillation", "distill"]
