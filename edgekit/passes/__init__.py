"""Passes: rewritings of a program. Each works alone on a program, or in a list through ``run_passes``."""

from edgekit.passes.contract import Pass, PassContext, PassResult, run_passes

__all__ = ["Pass", "PassContext", "PassResult", "run_passes"]
