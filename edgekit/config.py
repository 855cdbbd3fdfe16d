"""One form of configuration: TOML or JSON tables into frozen dataclasses, strictly.

Targets, recipes, task specs and the bundle's manifest all pass through here, so an unknown key is an error that names
the nearest known one everywhere, and a wrong type is reported with its full path (``input.size[1]``).
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgekit.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["from_dict", "nearest", "read_toml", "to_dict"]

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the nearest known word, or lists them all when none is near.

    >>> nearest("jetso", ["jetson", "rtx"])
    "did you mean 'jetson'?"
    """
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(words)}"


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file into a dict.

    Raises:
        ConfigError: The file is missing, unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str) -> T:
    """Builds the dataclass ``cls`` from a table, checking every key and type.

    Args:
        cls: A dataclass whose fields are scalars, ``Literal``, ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]``,
            ``dict[str, X]`` or dataclasses of the same kind.
        data: The table.
        where: Name of the source for messages, such as the file's path.

    Raises:
        ConfigError: Unknown or missing key, wrong type, or a value that the dataclass itself refuses.
    """
    return typing.cast(T, _dataclass(cls, data, where, ""))


def to_dict(value: Any) -> Any:
    """Turns dataclasses (nested, in tuples and dicts) into plain JSON-able data; the inverse of :func:`from_dict`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    return value


def _dataclass(cls: Any, data: Any, where: str, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: {path or 'top level'}: expected a table, got {_kind(data)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key '{_join(path, str(key))}'", hint=nearest(str(key), fields))
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], where, _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing key '{_join(path, name)}'")
    try:
        return cls(**values)
    except ConfigError as error:
        place = f"{where}: {path}: " if path else f"{where}: "
        raise ConfigError(place + error.message, hint=error.hint) from error


def _value(kind: Any, data: Any, where: str, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, where, path)
    if origin is typing.Literal:
        if data not in args or type(data) not in {type(arg) for arg in args}:
            hint = nearest(data, [str(arg) for arg in args]) if isinstance(data, str) else None
            raise ConfigError(f"{where}: {path}: expected one of {', '.join(map(repr, args))}, got {data!r}", hint=hint)
        return data
    if origin in (typing.Union, types.UnionType):
        return _union(args, data, where, path)
    if origin is tuple:
        return _tuple(args, data, where, path)
    if origin is dict:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where}: {path}: expected a table, got {_kind(data)}")
        return {str(key): _value(args[1], item, where, _join(path, str(key))) for key, item in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is not bool and isinstance(data, bool)):
        raise ConfigError(f"{where}: {path}: expected {kind.__name__}, got {_kind(data)}")
    return data


def _union(args: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    if data is None and type(None) in args:
        return None
    rest = [arg for arg in args if arg is not type(None)]
    problems = []
    for arg in rest:
        try:
            return _value(arg, data, where, path)
        except ConfigError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    names = " or ".join(getattr(arg, "__name__", str(arg)) for arg in rest)
    raise ConfigError(f"{where}: {path}: expected {names}, got {_kind(data)}")


def _tuple(args: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    if not isinstance(data, (list, tuple)):
        raise ConfigError(f"{where}: {path}: expected a list, got {_kind(data)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], item, where, f"{path}[{i}]") for i, item in enumerate(data))
    if len(data) != len(args):
        raise ConfigError(f"{where}: {path}: expected {len(args)} values, got {len(data)}")
    return tuple(_value(arg, item, where, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, data, strict=True)))


def _kind(data: Any) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean", int: "an integer", float: "a number"}
    name = names.get(type(data), type(data).__name__)
    return f"{name} ({data!r})" if isinstance(data, (str, bool, int, float)) else name


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
