"""The device's half of each task: an explicit table, and task specs in and out of TOML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.config import from_dict, nearest, read_toml, to_dict
from edgekit.errors import ConfigError
from edgekit.runtime.tasks.base import ImageInput, Result, RuntimeTask, Spec
from edgekit.runtime.tasks.classification import Classification

__all__ = [
    "ImageInput",
    "Result",
    "RuntimeTask",
    "Spec",
    "get_runtime_task",
    "load_spec",
    "spec_from_dict",
    "spec_to_dict",
    "task_names",
]

_TASKS: tuple[RuntimeTask[Any, Any], ...] = (Classification(),)


def task_names() -> tuple[str, ...]:
    """Returns the names that a spec's ``task`` may have."""
    return tuple(task.name for task in _TASKS)


def get_runtime_task(name: str) -> RuntimeTask[Any, Any]:
    """Returns a task by its name.

    Raises:
        ConfigError: No task has this name; names the nearest.
    """
    for task in _TASKS:
        if task.name == name:
            return task
    raise ConfigError(f"unknown task '{name}'", hint=nearest(name, task_names()))


def load_spec(path: Path) -> Spec:
    """Reads a task spec from a TOML file.

    The key ``task`` says which dataclass the rest must fit. ``labels`` is a list, or the path of a text file beside the
    TOML with one label a line.

    Raises:
        ConfigError: Missing or unreadable file, unknown task or key, wrong type, or an illegal value.
    """
    table = read_toml(path)
    labels = table.get("labels")
    if isinstance(labels, str):
        table = {**table, "labels": _read_labels(path.parent / labels, where=f"{path}: labels")}
    return spec_from_dict(table, where=str(path))


def spec_from_dict(table: Mapping[str, Any], *, where: str) -> Spec:
    """Builds a task spec from a plain table, such as a manifest's.

    Args:
        table: The spec, with the key ``task``.
        where: Name of the source, for messages.

    Raises:
        ConfigError: Unknown task or key, wrong type, or an illegal value.
    """
    name = table.get("task")
    if not isinstance(name, str):
        found = "nothing" if name is None else repr(name)
        raise ConfigError(f"{where}: task: expected one of {', '.join(task_names())}, got {found}")
    try:
        task = get_runtime_task(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
    spec: Spec = from_dict(task.spec_type, table, where=where)
    return spec


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Returns a spec as a plain table with its labels inside; the inverse of :func:`spec_from_dict`."""
    table: dict[str, Any] = to_dict(spec)
    return table


def _read_labels(path: Path, *, where: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{where}: cannot read {path}: {error.strerror}", hint="the path is relative to the TOML's folder"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: {path} is not UTF-8 text: {error}") from error
    labels = [line.strip() for line in text.rstrip().splitlines()]
    if "" in labels:
        raise ConfigError(f"{where}: {path}: line {labels.index('') + 1} is empty; expected one label a line")
    return labels
