"""Structured pruning on the graph: labels (what goes together), choice, surgery, and the oracle that checks it."""

from edgekit.passes.prune.options import PruneOptions
from edgekit.passes.prune.prune import Prune

__all__ = ["Prune", "PruneOptions"]
