"""Structured pruning on the graph: labels (what goes together), choice, surgery, and the oracle that checks it."""

from edgekit.passes.prune.options import PruneOptions
from edgekit.passes.prune.plan import Measures, Plan
from edgekit.passes.prune.prune import Prune, multiply_accumulates, prune

__all__ = ["Measures", "Plan", "Prune", "PruneOptions", "multiply_accumulates", "prune"]
