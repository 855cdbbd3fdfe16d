"""Folding: what training needs and inference does not, turned into constants directly before quantization."""

from edgekit.passes.fold.batchnorm import FoldBatchNorm
from edgekit.passes.fold.pixels import FoldPixels
from edgekit.passes.fold.preprocessing import FoldPreprocessing

__all__ = ["FoldBatchNorm", "FoldPixels", "FoldPreprocessing"]
