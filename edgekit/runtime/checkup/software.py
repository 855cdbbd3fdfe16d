"""What this Python has and can reach: its environment, the two libraries, the way to the driver, the GPUs."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import BackendMissing
from edgekit.runtime.cuda import DeviceFacts, binding_version, device_facts
from edgekit.runtime.tensorrt import TENSORRT, TENSORRT_RTX, Flavour

__all__ = ["Binding", "Library", "Software", "installed_software"]

_CUDA_MAJORS = (12, 13)


@dataclass(frozen=True, kw_only=True)
class Library:
    """TensorRT or TensorRT-RTX.

    Attributes:
        version: None where it cannot be imported.
        reason: Why not, in one line; empty where it can.
        cuda: First number of the CUDA that its wheel was built for; None where it is no such wheel.
    """

    version: str | None
    reason: str = ""
    cuda: int | None = None


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The package through which CUDA's driver is called."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Software:
    """This Python's view of the machine.

    Attributes:
        python: Its version.
        isolated: Whether it is a virtual environment that does not see the system's packages.
        tensorrt, tensorrt_rtx: The libraries.
        binding: None where none is installed.
        gpus: What the driver says of each GPU.
        gpu_problem: Why there is none; empty where there is one.
    """

    python: str
    isolated: bool
    tensorrt: Library
    tensorrt_rtx: Library
    binding: Binding | None
    gpus: tuple[DeviceFacts, ...]
    gpu_problem: str = ""


def installed_software() -> Software:
    """Asks this Python; never raises for what is missing."""
    try:
        gpus, problem = device_facts(), ""
    except BackendMissing as error:
        gpus, problem = (), error.message
    found = binding_version()
    return Software(
        python=platform.python_version(),
        isolated=_isolated(),
        tensorrt=_library(TENSORRT),
        tensorrt_rtx=_library(TENSORRT_RTX),
        binding=None if found is None else Binding(name=found[0], version=found[1]),
        gpus=gpus,
        gpu_problem=problem,
    )


def _library(flavour: Flavour) -> Library:
    try:
        version = str(flavour.library().__version__)
    except BackendMissing as error:
        return Library(version=None, reason=error.message.splitlines()[0])
    return Library(version=version, cuda=_wheel_cuda(flavour.package))


def _wheel_cuda(package: str) -> int | None:
    """Pip's wheels are one package for each CUDA: ``tensorrt_rtx_cu13``."""
    for major in _CUDA_MAJORS:
        try:
            importlib.metadata.version(f"{package}_cu{major}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return major
    return None


def _isolated() -> bool:
    if sys.prefix == sys.base_prefix:
        return False
    try:
        settings = (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return True
    # Source: Python documentation, "venv": include-system-site-packages = true or false.
    return "include-system-site-packages=true" not in settings.replace(" ", "").lower()
