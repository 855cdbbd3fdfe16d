"""Finds the TOML files that ship with edgekit (targets, recipes, augmentations) and the user's; reads them strictly.

A wheel carries ``targets/``, ``calibration/`` and ``augmentation/`` inside the package. An editable install does not
see files that the build puts there, so the source tree is a branch of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from edgekit.config import from_dict, read_toml
from edgekit.errors import ConfigError, InternalError

__all__ = ["Named", "builtin_folder", "is_path", "read_all", "read_one"]

Kind = Literal["targets", "calibration", "augmentation"]


class Named(Protocol):
    """A spec that is stored as one TOML file of the same name."""

    @property
    def name(self) -> str:
        """Unique among its kind; the file's stem."""
        ...


T = TypeVar("T", bound=Named)


def builtin_folder(kind: Kind) -> Path:
    """Returns the folder with the files that ship with edgekit.

    Raises:
        InternalError: The installation lacks the folder.
    """
    package = Path(__file__).resolve().parent
    installed = package / "_data" / kind
    if installed.is_dir():
        return installed
    source_tree = package.parent
    if (source_tree / "pyproject.toml").is_file() and (source_tree / kind).is_dir():
        return source_tree / kind
    raise InternalError(
        f"this installation of edgekit has no {kind} folder: looked for {installed}", hint="reinstall it"
    )


def is_path(name: str | Path) -> bool:
    """Returns whether a user's word means a file rather than the name of a spec.

    >>> is_path("jetson"), is_path("jetson.toml"), is_path("boards/jetson")
    (False, True, True)
    """
    if isinstance(name, Path):
        return True
    separators = {os.sep, "/"} if os.altsep is None else {os.sep, os.altsep}
    return name.endswith(".toml") or any(separator in name for separator in separators)


def read_one(cls: type[T], path: Path) -> T:
    """Reads one file into ``cls``.

    Raises:
        ConfigError: The file cannot be read, holds an unknown key or wrong value, or its name is not the spec's.
    """
    spec = from_dict(cls, read_toml(path), where=str(path))
    if spec.name != path.stem:
        raise ConfigError(
            f"{path}: name = '{spec.name}': expected the file's own name, '{path.stem}'",
            hint=f"rename the file to {spec.name}.toml, or change the name in it",
        )
    return spec


def read_all(cls: type[T], kind: Kind, *, variable: str, extra: Path | None = None) -> tuple[T, ...]:
    """Reads every file of a kind: those that ship with edgekit, and those of the user's folders.

    Args:
        cls: The dataclass that a file holds.
        kind: Which folder.
        variable: The environment variable that lists the user's folders, separated as in ``PATH``.
        extra: One more folder.

    Returns:
        The specs, by name.

    Raises:
        ConfigError: A folder does not exist, a file is wrong, or two files define the same name.
    """
    folders = [builtin_folder(kind), *(Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part)]
    if extra is not None:
        folders.append(extra)
    found: dict[str, tuple[T, Path]] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder of {kind}", hint=f"check {variable}")
        for path in sorted(folder.glob("*.toml")):
            spec = read_one(cls, path)
            if spec.name in found:
                raise ConfigError(
                    f"{path}: '{spec.name}' is already defined by {found[spec.name][1]}", hint="give yours another name"
                )
            found[spec.name] = (spec, path)
    return tuple(found[name][0] for name in sorted(found))
