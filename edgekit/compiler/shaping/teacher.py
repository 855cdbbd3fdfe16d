"""``--teacher``: another network than the given one, whose answers are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from edgekit.compiler.shaping.stages import DistillStage, Stage
from edgekit.errors import ConfigError, ModelError
from edgekit.frontend import load_program
from edgekit.program import Program
from edgekit.runtime.tasks.base import Spec

__all__ = ["check_teacher", "load_teacher"]


def check_teacher(given: bool, arch: str | None, args: Mapping[str, str] | None, stages: Sequence[Stage]) -> None:
    """Refuses a teacher that nobody would learn from, before anything is loaded.

    Args:
        given: Whether there is a teacher.
        arch, args: What builds it.
        stages: Of the compilation.

    Raises:
        ConfigError: Nothing is distilled, or what builds a teacher is given without one.
    """
    if not given and (arch is not None or args):
        raise ConfigError(
            "the architecture of a teacher was given, and no teacher", hint="give the file of its weights (--teacher)"
        )
    if given and not any(isinstance(stage, DistillStage) for stage in stages):
        raise ConfigError(
            "a teacher was given and nothing learns from it",
            hint="say for how long (--distill EPOCHS --train-data DIR); --qat learns from the float network itself",
        )


def load_teacher(
    teacher: str | Path | nn.Module | Program,
    *,
    task: Spec | None,
    arch: str | None,
    arch_path: Path | None,
    arch_args: Mapping[str, str] | None,
    allow_pickle: bool,
) -> Program:
    """Loads a teacher; a program is taken as it is.

    Args:
        teacher: A program, a live module, or the path of a file.
        task: The task spec of the compilation.
        arch, arch_path, arch_args, allow_pickle: See :func:`edgekit.frontend.load_program`.

    Raises:
        ModelError: It cannot be read or exported; the message says that it is the teacher.
        StageError: The exported graph answers differently from the model.
    """
    if isinstance(teacher, Program):
        return teacher
    try:
        return load_program(
            teacher if isinstance(teacher, nn.Module) else Path(teacher),
            task=task,
            arch=arch,
            arch_path=arch_path,
            arch_args=arch_args,
            allow_pickle=allow_pickle,
        )
    except ModelError as error:
        hint = None if error.hint is None else f"{error.hint}; for a teacher: --teacher-arch and --teacher-arg"
        raise ModelError(f"teacher: {error.message}", hint=hint) from error
