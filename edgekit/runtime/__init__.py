"""On the device: load a bundle, run it, get typed results. Needs numpy, OpenCV and one inference library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.runtime.model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that what only needs a spec or this machine's facts does not pay for importing OpenCV.
    if name in __all__:
        from edgekit.runtime import model

        return getattr(model, name)
    raise AttributeError(f"module 'edgekit.runtime' has no attribute '{name}'")
