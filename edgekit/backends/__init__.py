"""The backends, by the name that targets use. To add one: a folder, a line here, a conformance subclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgekit.backends.base import Backend
from edgekit.config import nearest
from edgekit.errors import ConfigError

__all__ = ["backend_names", "get_backend"]


def _openvino() -> Backend:
    from edgekit.backends.openvino.backend import OpenVinoBackend

    return OpenVinoBackend()


def _tensorrt() -> Backend:
    from edgekit.backends.tensorrt.backend import TensorRtBackend
    from edgekit.runtime.tensorrt import TENSORRT

    return TensorRtBackend(flavour=TENSORRT)


def _tensorrt_rtx() -> Backend:
    from edgekit.backends.tensorrt.backend import TensorRtBackend
    from edgekit.runtime.tensorrt import TENSORRT_RTX

    return TensorRtBackend(flavour=TENSORRT_RTX)


# Functions, so that one backend's modules are imported only when it is asked for.
_BACKENDS: Mapping[str, Callable[[], Backend]] = MappingProxyType(
    {"openvino": _openvino, "tensorrt": _tensorrt, "tensorrt_rtx": _tensorrt_rtx}
)


def backend_names() -> tuple[str, ...]:
    """Returns the names that :func:`get_backend` knows."""
    return tuple(_BACKENDS)


def get_backend(name: str) -> Backend:
    """Returns a backend by name; whether its library is installed is for its ``probe`` to say.

    Raises:
        ConfigError: No backend of that name; names the nearest.
    """
    if name not in _BACKENDS:
        raise ConfigError(f"unknown backend '{name}'", hint=nearest(name, _BACKENDS))
    return _BACKENDS[name]()
