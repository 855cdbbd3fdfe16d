"""Losses, one file a task: an explicit table. Apart from ``edgekit.tasks`` because that must do without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgekit.config import nearest
from edgekit.errors import ConfigError
from edgekit.objectives.base import Outputs, TaskObjective
from edgekit.objectives.classification import ClassificationObjective
from edgekit.runtime.tasks.base import Spec

__all__ = ["ClassificationObjective", "Outputs", "TaskObjective", "objective_for"]

_OBJECTIVES: Mapping[str, Callable[[Any], TaskObjective]] = MappingProxyType(
    {"classification": lambda spec: ClassificationObjective(spec=spec)}
)


def objective_for(spec: Spec) -> TaskObjective:
    """Returns the plain objective of a spec's task; make the task's class yourself for its options.

    Raises:
        ConfigError: The task cannot be trained.
    """
    if spec.task not in _OBJECTIVES:
        raise ConfigError(f"task '{spec.task}' has no objective", hint=nearest(spec.task, _OBJECTIVES))
    return _OBJECTIVES[spec.task](spec)
