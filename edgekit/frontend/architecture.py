"""``--arch package.module:callable``: importing the user's network and building it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.config import nearest
from edgekit.errors import ModelError

__all__ = ["build_architecture", "import_root", "parse_value"]

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def parse_value(text: str) -> Any:
    """Reads the VALUE of ``KEY=VALUE``: a Python literal where it is one, else the text itself.

    >>> parse_value("10"), parse_value("[1, 2]"), parse_value("relu")
    (10, [1, 2], 'relu')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextmanager
def import_root(folder: Path | None) -> Iterator[None]:
    """Makes ``folder`` importable inside the block and restores ``sys.path`` after it.

    Args:
        folder: Searched first. None: the working folder is searched last, so installed packages win.

    Raises:
        ModelError: ``folder`` is not a folder.
    """
    if folder is not None and not folder.is_dir():
        raise ModelError(
            f"arch_path: {folder} is not a folder", hint="give the folder that holds the package, not a file in it"
        )
    before = list(sys.path)
    if folder is None:
        sys.path.append(str(Path.cwd()))
    else:
        sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def build_architecture(arch: str, *, path: Path | None, args: Mapping[str, str]) -> nn.Module:
    """Imports and calls the callable that makes the network. This runs the user's own code.

    Args:
        arch: ``package.module:callable``.
        path: Import root; None stands for the working folder and what is installed.
        args: Keyword arguments, parsed with :func:`parse_value`.

    Raises:
        ModelError: The form is wrong, the module or attribute does not exist, the call fails or gives no ``nn.Module``.
    """
    if not _FORM.fullmatch(arch):
        raise ModelError(
            f"arch '{arch}': expected package.module:callable", hint="for example --arch mymodels.resnet:resnet56"
        )
    module_name, _, attribute = arch.partition(":")
    with import_root(path):
        factory = _attribute(arch, _import(arch, module_name, path), attribute)
        network = _call(arch, factory, {key: parse_value(value) for key, value in args.items()})
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"arch '{arch}': calling it gave a {type(network).__name__}, expected an nn.Module",
            hint="name a class that derives from nn.Module, or a function that returns an instance of one",
        )
    return network


def _import(arch: str, name: str, path: Path | None) -> Any:
    top = sys.modules.get(name.partition(".")[0])
    origin = getattr(top, "__file__", None)
    if path is not None and origin is not None and path.resolve() not in Path(origin).resolve().parents:
        raise ModelError(
            f"arch '{arch}': '{name.partition('.')[0]}' is already imported from {origin}, not from {path}",
            hint="rename the package, or run this in a new process",
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name if error.name is not None else name
        if name == missing or name.startswith(f"{missing}."):
            where = "the working folder and the installed packages" if path is None else str(path)
            raise ModelError(
                f"arch '{arch}': no module '{missing}' in {where}", hint="give its folder with --arch-path DIR"
            ) from error
        raise ModelError(
            f"arch '{arch}': importing '{name}' needs '{missing}', which is not installed", hint=f"install {missing}"
        ) from error
    except Exception as error:  # the user's module can raise anything
        raise ModelError(f"arch '{arch}': importing '{name}' failed: {type(error).__name__}: {error}") from error


def _attribute(arch: str, module: Any, attribute: str) -> Callable[..., Any]:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            raise ModelError(
                f"arch '{arch}': '{module.__name__}' has no '{attribute}'",
                hint=nearest(part, public) if public else None,
            )
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"arch '{arch}': '{attribute}' is a {type(found).__name__}, expected a class or function")
    return found  # type: ignore[no-any-return]


def _call(arch: str, factory: Callable[..., Any], args: dict[str, Any]) -> Any:
    try:
        signature: inspect.Signature | None = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**args)
        except TypeError as error:
            raise ModelError(
                f"arch '{arch}': cannot call it with {sorted(args)}: {error}",
                hint=f"its parameters are {signature}; give them with --arch-arg KEY=VALUE",
            ) from error
    try:
        return factory(**args)
    except Exception as error:  # the user's constructor can raise anything
        raise ModelError(
            f"arch '{arch}': calling it failed: {type(error).__name__}: {error}", hint="check the --arch-arg values"
        ) from error
