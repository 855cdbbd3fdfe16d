"""Everything in which TensorRT and TensorRT-RTX differ."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from edgekit.errors import BackendMissing

__all__ = ["TENSORRT", "TENSORRT_RTX", "Flavour"]


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
    """

    name: str
    title: str
    package: str
    engine_kind: str
    install_hint: str
    builds_anywhere: bool

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
)

TENSORRT_RTX = Flavour(
    name="tensorrt_rtx",
    title="TensorRT-RTX",
    package="tensorrt_rtx",
    engine_kind="tensorrt-rtx-plan",
    install_hint="install it: pip install 'edgekit[rtx]'",
    builds_anywhere=True,
)
