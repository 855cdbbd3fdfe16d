"""Everything in which TensorRT and TensorRT-RTX differ, and how to listen to either."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

from edgekit.errors import BackendMissing

__all__ = ["FLAVOURS", "TENSORRT", "TENSORRT_RTX", "Flavour", "Messages", "flavour_of"]


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of the two libraries.

    Attributes:
        name: Name in the backend table.
        title: Name for people.
        package: Python package.
        engine_kind: Key in the session table.
        install_hint: How to get it.
        builds_anywhere: Whether its builder needs no GPU, and its engines are for more than one.
        times_kernels: Whether its builder times kernels on the GPU, so that a timing cache makes it faster. In
            TensorRT-RTX such a cache changes nothing, needs a GPU, and is deprecated. Source: TensorRT for RTX
            documentation, "Timing Cache Migration".
        compiles_kernels: Whether its runtime compiles kernels when an engine is opened, and can keep them.
        captures_graphs: Whether its runtime captures inferences as CUDA graphs by itself.
    """

    name: str
    title: str
    package: str
    engine_kind: str
    install_hint: str
    builds_anywhere: bool
    times_kernels: bool
    compiles_kernels: bool
    captures_graphs: bool

    def library(self) -> ModuleType:
        """Imports the package.

        Raises:
            BackendMissing: It is not installed, or one of its shared libraries is missing.
        """
        try:
            return importlib.import_module(self.package)
        except (ImportError, OSError) as error:
            raise BackendMissing(f"{self.title} cannot be imported: {error}", hint=self.install_hint) from error


TENSORRT = Flavour(
    name="tensorrt",
    title="TensorRT",
    package="tensorrt",
    engine_kind="tensorrt-plan",
    install_hint="on a Jetson it comes with JetPack (apt install nvidia-jetpack); elsewhere: pip install tensorrt",
    builds_anywhere=False,
    times_kernels=True,
    compiles_kernels=False,
    captures_graphs=False,
)

TENSORRT_RTX = Flavour(
    name="tensorrt_rtx",
    title="TensorRT-RTX",
    package="tensorrt_rtx",
    engine_kind="tensorrt-rtx-plan",
    install_hint="install it: pip install 'edgekit[rtx]'",
    builds_anywhere=True,
    times_kernels=False,
    compiles_kernels=True,
    captures_graphs=True,
)

FLAVOURS: Mapping[str, Flavour] = MappingProxyType({item.engine_kind: item for item in (TENSORRT, TENSORRT_RTX)})
"""By the kind of their engines."""


def flavour_of(backend: str) -> Flavour | None:
    """Returns the library of a backend's name; None where it is neither of the two."""
    return next((item for item in FLAVOURS.values() if item.name == backend), None)


class Messages:
    """Collects what a library logs, so that nothing reaches the terminal and the reason of a failure is at hand.

    Args:
        library: The ``tensorrt`` or ``tensorrt_rtx`` module.

    Attributes:
        errors, warnings: In the order in which they came.
        logger: For the library's constructors; must outlive what they make.
    """

    def __init__(self, library: Any) -> None:
        errors: list[str] = []
        warnings: list[str] = []

        class Collector(library.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR):
                    errors.append(message)
                elif severity == library.ILogger.WARNING:
                    warnings.append(message)

        self.errors = errors
        self.warnings = warnings
        self.logger = Collector()

    def since(self, warnings: int) -> str:
        """Returns in one line what was logged after so many warnings, all errors among it, and forgets it."""
        found = [*self.warnings[warnings:], *self.errors]
        del self.warnings[warnings:], self.errors[:]
        return "; ".join(found)

    def reason(self) -> str:
        """Returns the latest errors in one line, and forgets them."""
        found, self.errors[:] = self.errors[-3:], []
        return "; ".join(found) if found else "it gives no reason"
