"""The one place where the compiler side imports OpenVINO, which is optional: every module imports without it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from edgekit.errors import BackendMissing

__all__ = ["INSTALL_HINT", "offline_transformations", "openvino"]

INSTALL_HINT = "install it: pip install 'edgekit[openvino]'"


def openvino() -> ModuleType:
    """Returns the ``openvino`` package.

    Raises:
        BackendMissing: It is not installed, or cannot be imported here.
    """
    return _imported("openvino")


def offline_transformations() -> Any:
    """Returns OpenVINO's graph clean-up, which its model conversion applies and reading an ONNX file does not."""
    return _imported("openvino._offline_transformations")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendMissing(f"OpenVINO cannot be imported: {error}", hint=INSTALL_HINT) from error
