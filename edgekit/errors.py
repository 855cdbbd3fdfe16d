"""The whole error hierarchy of edgekit, with the exit code that the CLI gives for each class.

A message says what is wrong, where, what was found against what was expected, and what to do next. The part that says
what to do goes into ``hint``, so that the CLI can set it apart and scripts can read it alone.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BackendMissing",
    "BundleError",
    "ConfigError",
    "DataError",
    "EdgekitError",
    "GateFailed",
    "InternalError",
    "MachineMismatch",
    "ModelError",
    "StageError",
    "UserError",
]


class EdgekitError(Exception):
    """Root of every error that edgekit raises on purpose.

    Args:
        message: What, where, found against expected.
        hint: What the user can do about it; shown on a line of its own.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


class UserError(EdgekitError):
    """Something that the user gave cannot be used: exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A TOML file, option or spec with an unknown key, a wrong type or an illegal value."""


class ModelError(UserError):
    """A model file that cannot be read, is not a model, is unsafe to load, or cannot be exported."""


class DataError(UserError):
    """A data folder or image that cannot be used."""


class BundleError(UserError):
    """A bundle that is damaged, tampered with, of a newer format, or not a bundle at all."""


class MachineMismatch(UserError):
    """A bundle entry that would be wrong or impossible to run on this machine."""


class BackendMissing(UserError):
    """An inference library, or a device of it, that this machine lacks: exit code 5."""

    exit_code = 5


class GateFailed(EdgekitError):
    """A measured value missed its bound and no candidate could be shipped instead: exit code 3."""

    exit_code = 3


class StageError(EdgekitError):
    """A stage of the flow (export, a pass, a build) failed on valid input: exit code 4."""

    exit_code = 4


class InternalError(EdgekitError):
    """A broken promise inside edgekit; the only class for which the CLI shows a traceback: exit code 70."""
