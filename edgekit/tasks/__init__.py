"""What each task reads and how it is measured: one file per task, one line in the table below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgekit.config import nearest
from edgekit.errors import ConfigError
from edgekit.tasks.base import ClassScore, Metric, MetricReport, Task
from edgekit.tasks.classification import ClassificationTask

__all__ = ["ClassScore", "Metric", "MetricReport", "Task", "get_task"]

_TASKS: Mapping[str, Task[Any]] = MappingProxyType({task.name: task for task in (ClassificationTask(),)})


def get_task(name: str) -> Task[Any]:
    """Returns the task of a spec's ``task`` key.

    Raises:
        ConfigError: There is no such task; names the nearest.
    """
    if name not in _TASKS:
        raise ConfigError(f"unknown task '{name}'", hint=nearest(name, _TASKS))
    return _TASKS[name]
