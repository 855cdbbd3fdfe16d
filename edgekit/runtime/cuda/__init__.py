"""The one seam to CUDA: cuda-bindings or pycuda, whichever is installed, behind the same few words.

Everything happens in the device's primary context, the one that torch, cupy and CUDA's runtime use, so that they can
work in the same process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.errors import BackendMissing
from edgekit.runtime.cuda.device import CudaDevice, DeviceFacts

__all__ = ["CudaDevice", "DeviceFacts", "binding_version", "device_facts", "open_device"]


@dataclass(frozen=True, kw_only=True)
class _Binding:
    """A way to the driver.

    Attributes:
        name: The distribution.
        package: What must be installed.
        module: Ours, with ``facts()`` and ``open_device(index)``.
    """

    name: str
    package: str
    module: str


# In the order of preference.
_BINDINGS: tuple[_Binding, ...] = (
    _Binding(name="cuda-bindings", package="cuda.bindings", module="edgekit.runtime.cuda.bindings"),
    _Binding(name="pycuda", package="pycuda", module="edgekit.runtime.cuda.pycuda"),
)


def binding_version() -> tuple[str, str] | None:
    """Returns the way to the driver that is used here, and its version; None where none is installed."""
    binding = next((item for item in _BINDINGS if _is_there(item.package)), None)
    if binding is None:
        return None
    try:
        return binding.name, importlib.metadata.version(binding.name)
    except importlib.metadata.PackageNotFoundError:  # copied into place without pip
        return binding.name, "of an unknown version"


def device_facts() -> tuple[DeviceFacts, ...]:
    """Returns what the driver says of each GPU.

    Raises:
        BackendMissing: No binding is installed, no driver, or no GPU.
    """
    binding = _installed()
    try:
        found: Sequence[DeviceFacts] = importlib.import_module(binding.module).facts()
    except ImportError as error:
        raise BackendMissing(f"{binding.name} cannot be imported: {error}", hint="install it anew") from error
    if not found:
        raise BackendMissing("the NVIDIA driver finds no GPU", hint="check the card and the driver: nvidia-smi")
    return tuple(found)


def open_device(index: int = 0) -> CudaDevice:
    """Opens a GPU.

    Args:
        index: Its number, as the driver counts.

    Raises:
        BackendMissing: No binding is installed, no driver, or no such GPU.
        StageError: CUDA failed.
    """
    count = len(device_facts())
    if not 0 <= index < count:
        raise BackendMissing(f"there is no GPU {index} here; the driver finds {count}")
    device: CudaDevice = importlib.import_module(_installed().module).open_device(index)
    return device


def _installed() -> _Binding:
    for binding in _BINDINGS:
        if _is_there(binding.package):
            return binding
    raise BackendMissing(
        "neither cuda-bindings nor pycuda is installed; engines of NVIDIA GPUs need one of them",
        hint="install one: pip install cuda-bindings",
    )


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
