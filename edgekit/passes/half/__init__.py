"""Half precision: which nodes it hurts, by measurement, and the pass that writes it into the graph around them."""

from edgekit.passes.half.arithmetic import LARGEST
from edgekit.passes.half.convert import ToHalf
from edgekit.passes.half.measure import NodeError, measure_half

__all__ = ["LARGEST", "NodeError", "ToHalf", "measure_half"]
