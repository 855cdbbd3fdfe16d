"""``edgekit.compile``: the flow, for notebooks, scripts and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from edgekit.backends.batch import parse_batch
from edgekit.compiler.flow import compile_program
from edgekit.compiler.inputs import gather
from edgekit.compiler.options import Choice, CompileOptions
from edgekit.compiler.report import CompileReport
from edgekit.frontend import load_program
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.tasks.base import Spec

__all__ = ["compile"]


def compile(
    model: str | Path | nn.Module,
    *,
    target: str | Path | Sequence[str | Path] = (),
    task: str | Path | Spec | None = None,
    data: str | Path | None = None,
    eval_data: str | Path | None = None,
    output: str | Path | None = None,
    recipe: str = "default",
    samples: int | None = None,
    seed: int | None = None,
    precision: Choice = "auto",
    strict: bool = False,
    max_drop: float = 1.0,
    max_eval: int = 2000,
    batch: int | str | Sequence[int] | None = None,
    dynamic_batch: bool = False,
    timing: bool = True,
    golden: int = 4,
    golden_from_data: bool = False,
    threads: int | None = None,
    arch: str | None = None,
    arch_path: str | Path | None = None,
    arch_args: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    example_inputs: tuple[torch.Tensor, ...] | None = None,
    progress: Progress | None = None,
) -> CompileReport:
    """Compiles a trained model into a bundle.

    Args:
        model: A live module, or the path of a ``.pt2``, TorchScript or checkpoint file.
        target: A target's name, alias or TOML path, or several; empty means this machine.
        task: The task spec, or the path of its TOML file; None for a raw model.
        data: Folder of calibration images; None compiles to the best float engine.
        eval_data: Folder of labelled images that the model has not seen; None takes a split of ``data``.
        output: The bundle; None derives it from the model's name.
        recipe, samples, seed, precision, strict, max_drop, max_eval, dynamic_batch, timing, golden, golden_from_data,
            threads: See :class:`edgekit.compiler.CompileOptions`.
        batch: How many images engines take at once: ``8`` (up to eight, tuned for eight), or smallest, best and
            largest, as ``"1/4/16"`` or ``(1, 4, 16)``. None: one, or with ``dynamic_batch`` what the target says.
        arch: For a checkpoint: ``package.module:callable`` that builds the model.
        arch_path: Folder from which ``arch`` is imported.
        arch_args: Arguments of the callable, as text; read as Python literals where they are such.
        allow_pickle: Load a pickled module. A pickle runs code: only from who you trust.
        example_inputs: Float inputs of batch 1 or more, for a raw model without a task spec.
        progress: Where progress is shown; None shows none.

    Returns:
        The report: every candidate with accuracy, latency and size, what ships and why. The bundle is on disk.

    Raises:
        UserError: Something given is missing, wrong or contradictory.
        GateFailed: No candidate passed its gates.
        StageError: The model cannot be exported or built for the target.

    Example:
        >>> report = edgekit.compile(module, target="x86-cpu", task="task.toml", data="calib/", output="m.edge")
        ... # doctest: +SKIP
    """
    options = CompileOptions(
        targets=(target,) if isinstance(target, (str, Path)) else tuple(target),
        output=None if output is None else Path(output),
        task=Path(task) if isinstance(task, str) else task,
        data=None if data is None else Path(data),
        eval_data=None if eval_data is None else Path(eval_data),
        recipe=recipe,
        samples=samples,
        seed=seed,
        precision=precision,
        strict=strict,
        max_drop=max_drop,
        max_eval=max_eval,
        batch=None if batch is None else parse_batch(batch),
        dynamic_batch=dynamic_batch,
        timing=timing,
        golden=golden,
        golden_from_data=golden_from_data,
        threads=threads,
    )
    inputs = gather(options)
    shown = SilentProgress() if progress is None else progress
    with shown.task("exporting the model", 1) as bar:
        program = load_program(
            model if isinstance(model, nn.Module) else Path(model),
            task=inputs.spec,
            arch=arch,
            arch_path=None if arch_path is None else Path(arch_path),
            arch_args=arch_args,
            allow_pickle=allow_pickle,
            example_inputs=example_inputs,
        )
        bar.advance()
    return compile_program(program, inputs, options, progress=shown)
