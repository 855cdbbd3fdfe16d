"""``edgekit.compile``: the flow, for notebooks, scripts and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgekit.backends.batch import parse_batch
from edgekit.compiler.flow import check_batch, compile_program, prepare
from edgekit.compiler.images import ImageSets
from edgekit.compiler.inputs import Inputs, check_output, gather
from edgekit.compiler.options import Choice, CompileOptions
from edgekit.compiler.report import CompileReport
from edgekit.compiler.shaping import DistillStage, QatStage, Stage, parse_prune, read_stages
from edgekit.compiler.shaping.clock import clock_for
from edgekit.compiler.shaping.learning import forget
from edgekit.compiler.shaping.run import ShapingData, shape
from edgekit.compiler.shaping.teacher import check_teacher, load_teacher
from edgekit.datafiles import is_path
from edgekit.errors import ConfigError
from edgekit.frontend import load_program
from edgekit.frontend.architecture import build_architecture
from edgekit.passes import PassContext
from edgekit.passes.distill.distill import check_pair
from edgekit.passes.train.world import joined_world, leads
from edgekit.program import Program
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
    prune: float | str | None = None,
    prune_exclude: Sequence[str] = (),
    distill: int | None = None,
    qat: int | None = None,
    stages: Sequence[Stage] = (),
    train_data: str | Path | None = None,
    student: str | nn.Module | None = None,
    student_args: Mapping[str, str] | None = None,
    teacher: str | Path | nn.Module | Program | None = None,
    teacher_arch: str | None = None,
    teacher_args: Mapping[str, str] | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
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
        prune: Share of the multiply-accumulates to keep by removing channels, such as 0.5; ``"blocks=0.5"``: by
            removing whole residual blocks; ``"latency=0.6"``, or ``"latency=0.6@x86-cpu"``: share of the time on the
            target to keep, by removing what costs least for the time that it saves.
        prune_exclude: Patterns of layers that pruning leaves alone.
        distill: Epochs of training on the given network's answers, after pruning.
        qat: Epochs of training of each int8 program on the answers of the float one.
        stages: Instead of these, stages in order, each with all of its options.
        train_data: Folder of images to train on; labels help and are not needed.
        student: A network that takes the given one's place and learns from it: a live module, or
            ``package.module:callable``. Its weights are as the callable leaves them; what it draws from torch comes
            from ``seed``.
        student_args: Arguments of that callable, as text.
        teacher: The network whose answers are learned, instead of the given one, by which accuracy is measured all the
            same: a live module, a program, or the path of a file as ``model`` takes it.
        teacher_arch: For a teacher that is a checkpoint: ``package.module:callable`` that builds it.
        teacher_args: Arguments of that callable, as text.
        checkpoints: Folder for the state of trainings; None derives ``<output>.training``.
        resume: Go on where the checkpoints are.
        batch: How many images engines take at once: ``8`` (up to eight, tuned for eight), or smallest, best and
            largest, as ``"1/4/16"`` or ``(1, 4, 16)``. None: one, or with ``dynamic_batch`` what the target says.
        arch: For a checkpoint: ``package.module:callable`` that builds the model.
        arch_path: Folder from which ``arch``, ``student`` and ``teacher_arch`` are imported.
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
        SystemExit: With code 0, in the processes of ``torchrun`` but number 0, once what they share is done.

    Example:
        >>> report = edgekit.compile(module, task="task.toml", data="calib/", output="m.edge")  # doctest: +SKIP
    """
    read = read_stages(Path(recipe)) if is_path(recipe) else None
    asked = _stages(prune, prune_exclude, distill, qat)
    if sum(bool(item) for item in (read, asked, stages)) > 1:
        raise ConfigError(
            "stages were given twice: by a recipe and by options", hint="give them in the recipe, or by options"
        )
    chosen = tuple(stages) if stages else asked if read is None else read.stages
    check_teacher(teacher is not None, teacher_arch, teacher_args, chosen)
    options = CompileOptions(
        targets=(target,) if isinstance(target, (str, Path)) else tuple(target),
        output=None if output is None else Path(output),
        task=Path(task) if isinstance(task, str) else task,
        data=None if data is None else Path(data),
        eval_data=None if eval_data is None else Path(eval_data),
        recipe=recipe if read is None else read.calibration,
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
        stages=chosen,
        train_data=None if train_data is None else Path(train_data),
        checkpoints=None if checkpoints is None else Path(checkpoints),
        resume=resume,
    )
    inputs = gather(options)
    shown = SilentProgress() if progress is None or not leads() else progress
    root = None if arch_path is None else Path(arch_path)
    with shown.task("exporting the model", 1) as bar:
        program = load_program(
            model if isinstance(model, nn.Module) else Path(model),
            task=inputs.spec,
            arch=arch,
            arch_path=root,
            arch_args=arch_args,
            allow_pickle=allow_pickle,
            example_inputs=example_inputs,
        )
        bar.advance()
    images = ImageSets.of(inputs.calibration, inputs.evaluation, inputs.spec)
    pupil = program
    if student is not None:
        pupil = _student(student, student_args, root, inputs, chosen)
    taught_by = program
    if teacher is not None:
        with shown.task("exporting the teacher", 1) as bar:
            taught_by = load_teacher(
                teacher,
                task=inputs.spec,
                arch=teacher_arch,
                arch_path=root,
                arch_args=teacher_args,
                allow_pickle=allow_pickle,
            )
            bar.advance()
    if not chosen:
        if not leads():
            raise SystemExit(0)
        return compile_program(program, inputs, options, images=images, progress=shown)
    return _shaped(program, pupil, taught_by, inputs, options, images, shown)


def _stages(
    prune: float | str | None, exclude: Sequence[str], distill: int | None, qat: int | None
) -> tuple[Stage, ...]:
    stages: tuple[Stage, ...] = ()
    if exclude and prune is None:
        raise ConfigError("layers are excluded from pruning, and nothing is pruned", hint="say how much (--prune 0.5)")
    if prune is not None:
        stages = (replace(parse_prune(str(prune)), exclude=tuple(exclude)),)
    stages = stages if distill is None else (*stages, DistillStage(epochs=distill))
    return stages if qat is None else (*stages, QatStage(epochs=qat))


def _student(
    student: str | nn.Module,
    arguments: Mapping[str, str] | None,
    root: Path | None,
    inputs: Inputs,
    stages: Sequence[Stage],
) -> Program:
    if not any(isinstance(stage, DistillStage) for stage in stages):
        raise ConfigError("a student needs training", hint="say for how long (--distill EPOCHS --train-data DIR)")
    module = student
    if isinstance(module, str):
        # The same in every process and when it is resumed, whatever the callable draws from torch.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(inputs.recipe.seed)
            module = build_architecture(module, path=root, args={} if arguments is None else arguments)
    return load_program(module, task=inputs.spec)


def _shaped(
    program: Program,
    pupil: Program,
    teacher: Program,
    inputs: Inputs,
    options: CompileOptions,
    images: ImageSets,
    progress: Progress,
) -> CompileReport:
    # What would be refused at the end is refused before the long work.
    check_batch(pupil, options)
    if any(isinstance(stage, DistillStage) for stage in options.stages):
        check_pair(pupil, teacher)
    output = options.output if options.output is not None else Path(f"{program.name}.edge")
    check_output(output)
    checkpoints = options.checkpoints if options.checkpoints is not None else Path(f"{output}.training")
    context = PassContext(progress=progress)
    clock = clock_for(
        inputs.jobs,
        options.stages,
        program,
        images.calibration,
        batch=1 if options.batch is None else options.batch.best,
        threads=options.threads,
        seed=inputs.recipe.seed,
        timing=options.timing,
    )
    with joined_world("auto") as world:
        shaped = shape(
            pupil,
            options.stages,
            ShapingData(training=inputs.training, calibration=images.calibration, evaluation=images.evaluation),
            given=program,
            teacher=teacher,
            clock=clock,
            align=inputs.alignment,
            max_drop=options.max_drop,
            seed=inputs.recipe.seed,
            checkpoints=checkpoints if inputs.training is not None else None,
            resume=options.resume,
            context=context,
        )
        flow = prepare(
            replace(shaped.program, name=program.name),
            inputs,
            replace(options, output=output, checkpoints=checkpoints),
            images=images,
            reference=shaped.reference,
            stages=shaped.reports,
            progress=progress,
        )
        int8 = None if options.qat is None else flow.int8()
    if not world.leads:
        raise SystemExit(0)  # of several processes, which all train, one builds, measures and writes
    report = flow.run(int8)
    if options.checkpoints is None:
        forget(checkpoints)  # the bundle holds what they were for
    return report
