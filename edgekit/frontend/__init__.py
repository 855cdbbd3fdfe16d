"""Model file or live module in, :class:`~edgekit.program.Program` out."""

from edgekit.frontend.load import load_program

__all__ = ["load_program"]
