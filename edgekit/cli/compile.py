"""``edgekit compile``: a trained model in, a verified bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from edgekit.cli.answer import Answer
from edgekit.cli.options import EXISTING_PATH, NEW_PATH, json_option
from edgekit.progress import progress_for

__all__ = ["command"]


def _arch_arguments(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"expected KEY=VALUE, got '{pair}'", ctx=context, param=parameter)
        if key in arguments:
            raise click.BadParameter(f"'{key}' is given twice", ctx=context, param=parameter)
        arguments[key] = value
    return arguments


@click.command(
    "compile",
    epilog="""\b
Examples:
  edgekit compile model.pt2 --task task.toml --data calib/ -o model.edge
  edgekit compile weights.pt --arch mymodels:resnet56 --task task.toml --data calib/ \\
      --target jetson --target x86-cpu
  edgekit compile model.pt2 --task task.toml --data calib/ --prune latency=0.6 --distill 10 --train-data train/
  edgekit compile small.pt2 --task task.toml --data calib/ --teacher large.pt2 \\
      --distill 20 --train-data train/
  edgekit compile model.pt2 --task task.toml --data calib/ --target rtx --batch 1/4/16""",
)
@click.argument("model", type=EXISTING_PATH, metavar="MODEL")
@click.option(
    "--arch", metavar="MODULE:CALLABLE", help="For a checkpoint: what builds the model that its weights go into."
)
@click.option(
    "--arch-path",
    type=EXISTING_PATH,
    metavar="DIR",
    help="Folder from which --arch (and a student or teacher) is imported.",
)
@click.option(
    "--arch-arg",
    "arch_args",
    multiple=True,
    callback=_arch_arguments,
    metavar="KEY=VALUE",
    help="Argument for the callable of --arch; may be repeated.",
)
@click.option(
    "--allow-pickle", is_flag=True, help="Load a pickled module. It can run any code: only from who you trust."
)
@click.option(
    "--task", type=EXISTING_PATH, metavar="TOML", help="Task spec: labels, and what the model expects of its input."
)
@click.option(
    "--data", type=EXISTING_PATH, metavar="DIR", help="Calibration images; without them, the best float engine is made."
)
@click.option(
    "--eval-data",
    type=EXISTING_PATH,
    metavar="DIR",
    help="Labelled images for the accuracy gate.  [default: a part of --data that calibration does not see]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="Target name or TOML file; may be repeated: one bundle carries all.  [default: this machine's]",
)
@click.option("-o", "--output", type=NEW_PATH, metavar="FILE", help="The bundle.  [default: <model name>.edge, here]")
@click.option(
    "--recipe",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Calibration recipe, or a TOML file: a calibration recipe, or stages with all their options.",
)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Calibration images.  [default: the recipe's]")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of every random choice.  [default: the recipe's]"
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "int8", "mixed", "fp16", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="Pick by measurement, or force one. mixed: int8, with layers returned to float where it drops too far.",
)
@click.option(
    "--strict", is_flag=True, help="Fail where a layer that was planned int8 runs otherwise; else it is a finding."
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Largest accepted accuracy drop against float, in percentage points.",
)
@click.option(
    "--max-eval",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    metavar="N",
    help="Most images that the accuracy gate uses.",
)
@click.option(
    "--batch",
    metavar="N|1/BEST/N",
    help="Make engines that take up to N images at once, tuned for N or for BEST; overrides the target.  [default: 1]",
)
@click.option(
    "--dynamic-batch", is_flag=True, help="Make engines that take any number of images, or as many as the target says."
)
@click.option("--no-timing", is_flag=True, help="Do not time candidates here; latency stays unverified.")
@click.option(
    "--golden",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="Images of the bundle's self-test.",
)
@click.option(
    "--golden-from-data", is_flag=True, help="Take these from --data, not synthetic ones. They travel in the bundle!"
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Engine threads for timing and evaluation.")
@click.option(
    "--prune",
    metavar="KEEP",
    help="Share of the arithmetic to keep by removing channels, such as 0.5; blocks=0.5 removes residual blocks; "
    "latency=0.6 keeps that share of the time on the target, latency=0.6@TARGET on one of several.",
)
@click.option(
    "--prune-exclude", multiple=True, metavar="PATTERN", help="Layers that pruning leaves alone; may be repeated."
)
@click.option(
    "--distill",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="Train on the answers of the given network, or of --teacher, after pruning, for so many epochs.",
)
@click.option(
    "--qat", type=click.IntRange(min=1), metavar="EPOCHS", help="Train the int8 network itself for so many epochs."
)
@click.option(
    "--train-data", type=EXISTING_PATH, metavar="DIR", help="Images to train on; labels help and are not needed."
)
@click.option(
    "--student",
    metavar="MODULE:CALLABLE",
    help="A network that takes MODEL's place and learns from it (with --distill).",
)
@click.option(
    "--student-arg",
    "student_args",
    multiple=True,
    callback=_arch_arguments,
    metavar="KEY=VALUE",
    help="Argument for the callable of --student; may be repeated.",
)
@click.option(
    "--teacher",
    type=EXISTING_PATH,
    metavar="FILE",
    help="A network whose answers --distill learns instead of MODEL's: a file of any kind that MODEL may be.",
)
@click.option(
    "--teacher-arch", metavar="MODULE:CALLABLE", help="For a teacher that is a checkpoint: what builds its network."
)
@click.option(
    "--teacher-arg",
    "teacher_args",
    multiple=True,
    callback=_arch_arguments,
    metavar="KEY=VALUE",
    help="Argument for the callable of --teacher-arch; may be repeated.",
)
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where trainings keep their state after each epoch.  [default: <bundle>.training, removed at the end]",
)
@click.option("--resume", is_flag=True, help="Go on with the training that was interrupted.")
@json_option
def command(
    model: Path,
    arch: str | None,
    arch_path: Path | None,
    arch_args: dict[str, str],
    allow_pickle: bool,
    task: Path | None,
    data: Path | None,
    eval_data: Path | None,
    targets: tuple[str, ...],
    output: Path | None,
    recipe: str,
    samples: int | None,
    seed: int | None,
    precision: Literal["auto", "int8", "mixed", "fp16", "bf16", "fp32"],
    strict: bool,
    max_drop: float,
    max_eval: int,
    batch: str | None,
    dynamic_batch: bool,
    no_timing: bool,
    golden: int,
    golden_from_data: bool,
    threads: int | None,
    prune: str | None,
    prune_exclude: tuple[str, ...],
    distill: int | None,
    qat: int | None,
    train_data: Path | None,
    student: str | None,
    student_args: dict[str, str],
    teacher: Path | None,
    teacher_arch: str | None,
    teacher_args: dict[str, str],
    checkpoints: Path | None,
    resume: bool,
) -> Answer:
    """Makes a bundle from a trained model: exported, quantized, built for each target, checked.

    MODEL is a .pt2 file of torch.export, a TorchScript archive, or a checkpoint with --arch. Nothing is written before
    the engine has passed its gates: it answers as the quantized program does, its accuracy is within --max-drop, and
    int8 is not slower than the best float engine. What fails falls back to the best candidate that passes, and the
    report says so.
    """
    # Here and not above: the compiler brings in torch, which `edgekit compile --help` must not wait for.
    from edgekit.compiler import compile as compile_model

    report = compile_model(
        model,
        target=targets,
        task=task,
        data=data,
        eval_data=eval_data,
        output=output,
        recipe=recipe,
        samples=samples,
        seed=seed,
        precision=precision,
        strict=strict,
        max_drop=max_drop,
        max_eval=max_eval,
        batch=batch,
        dynamic_batch=dynamic_batch,
        timing=not no_timing,
        golden=golden,
        golden_from_data=golden_from_data,
        threads=threads,
        prune=prune,
        prune_exclude=prune_exclude,
        distill=distill,
        qat=qat,
        train_data=train_data,
        student=student,
        student_args=student_args,
        teacher=teacher,
        teacher_arch=teacher_arch,
        teacher_args=teacher_args,
        checkpoints=checkpoints,
        resume=resume,
        arch=arch,
        arch_path=arch_path,
        arch_args=arch_args,
        allow_pickle=allow_pickle,
        progress=progress_for(quiet=False),
    )
    return Answer(schema="edgekit.compile/1", document=report.to_dict(), text=report.to_text())
