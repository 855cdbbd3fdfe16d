"""Channel scaling before quantization: moves range from one tensor into its neighbour; changes nothing in float."""

from edgekit.passes.equalize.bounds import DropImpliedBounds
from edgekit.passes.equalize.channels import EqualizeChannels
from edgekit.passes.equalize.smooth import SmoothActivations

__all__ = ["DropImpliedBounds", "EqualizeChannels", "SmoothActivations"]
