"""The compiler: one call from a model to a bundle."""

from edgekit.compiler.api import compile
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.report import CompileReport

__all__ = ["CompileOptions", "CompileReport", "compile"]
