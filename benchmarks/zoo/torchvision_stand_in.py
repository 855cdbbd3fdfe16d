"""Lets timm be imported without torchvision, which has no build for torch's CPU wheels here.

The networks of timm compute nothing with torchvision: they import names for image transforms, data sets and feature
extraction. While timm is imported, every such name is an empty class; afterwards nothing of it is left behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["torchvision_for_timm"]

_NAME = "torchvision"


class _Names(type):
    """Classes whose unknown attributes are empty classes too (``InterpolationMode.BICUBIC``)."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] == _NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _empty(name: str) -> type:
    return _Names(name, (), {})


@contextmanager
def torchvision_for_timm() -> Iterator[None]:
    """Within it, ``import timm`` works; a real torchvision is used where there is one."""
    if find_spec(_NAME) is not None:
        yield
        return
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [item for item in sys.modules if item.split(".")[0] == _NAME]:
            del sys.modules[name]
