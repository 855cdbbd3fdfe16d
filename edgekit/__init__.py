"""edgekit makes trained vision models ship: one trainable graph in, one verified bundle per model out.

On the device, ``from edgekit.runtime import load`` is all there is to it. ``edgekit.compile`` brings in the compiler
(and torch) only when it is used, so ``import edgekit`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.compiler import compile

__all__ = ["__version__", "compile"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "compile":
        from edgekit.compiler import compile

        return compile
    raise AttributeError(f"module 'edgekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
