"""From an exception to what the user sees and the exit code that scripts see, in one place."""

from __future__ import annotations

import os
import sys
import textwrap
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import click

from edgekit.errors import BackendMissing, EdgekitError, InternalError, UserError

__all__ = ["Failure", "explain", "print_failure"]

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "cv2": "cv",
        "onnx": "compile",
        "onnx_ir": "compile",
        "onnxscript": "compile",
        "openvino": "openvino",
        "tensorrt_rtx": "rtx",
        "torch": "compile",
    }
)
_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
_REPORT = (
    "this is an error in edgekit itself: please report it, with the lines above, the command "
    "and the output of `edgekit doctor`"
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is shown of an error.

    Attributes:
        error: Name of the class, for scripts.
        message: What, where, found against expected.
        hint: What to do; None when there is nothing to say.
        exit_code: 2 user, 3 gate, 4 stage, 5 backend missing, 70 internal, 130 interrupted.
        unforeseen: Whether a traceback is shown without being asked for.
    """

    error: str
    message: str
    hint: str | None
    exit_code: int
    unforeseen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the document ``edgekit.error/1`` without its schema."""
        return {"error": self.error, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


def explain(error: BaseException) -> Failure:
    """Says what to show for an exception.

    Args:
        error: Whatever left a command: an :class:`edgekit.errors.EdgekitError`, click's usage error or abort, the
            import error of a missing extra, or anything else, which is then an internal error.
    """
    if isinstance(error, EdgekitError):
        internal = isinstance(error, InternalError)
        hint = _REPORT if internal and error.hint is None else error.hint
        return Failure(
            error=type(error).__name__, message=error.message, hint=hint, exit_code=error.exit_code, unforeseen=internal
        )
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        message = "interrupted: no partial file was left behind"
        return Failure(error="Interrupted", message=message, hint=None, exit_code=_INTERRUPTED)
    if isinstance(error, click.ClickException):
        return Failure(
            error="UsageError", message=error.format_message(), hint=_usage_hint(error), exit_code=UserError.exit_code
        )
    if isinstance(error, ImportError) and error.name is not None and error.name.partition(".")[0] in _EXTRAS:
        return _missing_extra(error.name.partition(".")[0])
    message = f"unexpected {type(error).__name__}: {error}"
    return Failure(
        error=type(error).__name__, message=message, hint=_REPORT, exit_code=InternalError.exit_code, unforeseen=True
    )


def print_failure(error: BaseException, failure: Failure, *, debug: bool, prefix: str = "") -> None:
    """Prints message and hint on stderr, after the traceback if that is asked for or the error is internal.

    Args:
        error: What left the command.
        failure: What :func:`explain` says of it.
        debug: Show the traceback in any case.
        prefix: Which of several processes speaks.
    """
    if debug or failure.unforeseen:
        traceback.print_exception(error, file=sys.stderr)
    first = click.style("error:", fg="red", bold=True) if _coloured() else "error:"
    click.echo(f"{prefix}{first} {failure.message}", err=True)
    if failure.hint is not None:
        click.echo(textwrap.indent(failure.hint, "  "), err=True)


def _missing_extra(module: str) -> Failure:
    extra = _EXTRAS[module]
    return Failure(
        error=BackendMissing.__name__,
        message=f"this command needs the Python package '{module}', which is not installed here",
        hint=f"install it: python -m pip install 'edgekit[{extra}]'",
        exit_code=BackendMissing.exit_code,
    )


def _usage_hint(error: click.ClickException) -> str | None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return None if context is None else f"see: {context.command_path} --help"


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
