"""Everything that a compilation needs from outside, looked at before any work starts, so that a typo costs a second."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.backends import get_backend
from edgekit.backends.base import Backend
from edgekit.calibration import Recipe, load_recipe
from edgekit.compiler.candidates import precisions_for
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.records import DataReport
from edgekit.data import (
    MIN_CALIBRATION_IMAGES,
    Dataset,
    calibration_warnings,
    choose,
    shared_images,
    split,
    stratified_sample,
)
from edgekit.errors import BackendMissing, ConfigError, DataError, UserError
from edgekit.runtime.machine import default_target
from edgekit.runtime.tasks import load_spec
from edgekit.runtime.tasks.base import Spec
from edgekit.targets import Precision, Target, load_target
from edgekit.tasks import get_task

__all__ = ["Inputs", "Job", "check_output", "gather"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One target to compile for.

    Attributes:
        backend: The target's.
        precisions: The candidates to make, in the target's order.
    """

    target: Target
    backend: Backend
    precisions: tuple[Precision, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The checked inputs of a compilation.

    Attributes:
        jobs: One per target, in the order asked for.
        spec: The task spec, or None for a raw model.
        recipe: With the user's overrides.
        calibration: Images for ranges, or None.
        evaluation: Labelled images for the accuracy gate, or None.
        training: Images to train on, none of them in ``evaluation``; None where nothing trains.
        data: For the report.
        warnings: What is doubtful about them.
    """

    jobs: tuple[Job, ...]
    spec: Spec | None
    recipe: Recipe
    calibration: Dataset | None
    evaluation: Dataset | None
    training: Dataset | None
    data: DataReport
    warnings: tuple[str, ...]

    @property
    def alignment(self) -> int:
        """The multiple of channels that suits every target."""
        return math.lcm(*(job.target.channel_alignment for job in self.jobs))


def gather(options: CompileOptions) -> Inputs:
    """Loads targets, spec, recipe and lists of images.

    Raises:
        UserError: Anything is missing, unreadable, unknown or contradictory; one of its subclasses says which.
    """
    jobs = _jobs(options)
    spec = load_spec(options.task) if isinstance(options.task, Path) else options.task
    recipe = load_recipe(options.recipe)
    recipe = replace(
        recipe,
        samples=recipe.samples if options.samples is None else options.samples,
        seed=recipe.seed if options.seed is None else options.seed,
    )
    if options.output is not None:
        check_output(options.output)
    if spec is None:
        return _without_task(options, jobs, recipe)
    calibration, evaluation, source = _datasets(options, spec, recipe)
    warnings = (
        [_NO_DATA] if calibration is None else [*calibration_warnings(calibration, getattr(spec, "labels", None))]
    )
    if evaluation is None:
        warnings.append(_NOT_CHECKED)
    elif calibration is not None and options.eval_data is not None:
        shared = shared_images(calibration, evaluation)
        warnings += [_shared_warning(len(shared), len(evaluation))] if shared else []
    training = None if options.train_data is None else _training(options.train_data, spec, evaluation)
    notes = tuple(
        note for dataset in (calibration, evaluation, training) if dataset is not None for note in dataset.notes
    )
    data = DataReport(
        calibration=0 if calibration is None else len(calibration),
        evaluation=0 if evaluation is None else len(evaluation),
        evaluation_source=source,
        training=0 if training is None else len(training),
        notes=tuple(dict.fromkeys(notes)),
    )
    return Inputs(
        jobs=jobs,
        spec=spec,
        recipe=recipe,
        calibration=calibration,
        evaluation=evaluation,
        training=training,
        data=data,
        warnings=tuple(warnings),
    )


def check_output(path: Path) -> None:
    """Looks whether a bundle can be written, so that a long job does not end in an error that was there before it.

    Raises:
        UserError: It is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file", hint=f"for instance {path / 'model.edge'}")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{path}: the folder {parent} does not exist", hint="make it first, or choose another output")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{path}: the folder {parent} cannot be written to", hint="choose another output")


_NO_DATA = (
    "int8 was not tried: it needs calibration images. About 300 of the kind that the device will see, in a folder per "
    f"class, also give the accuracy of every candidate (--data; at least {MIN_CALIBRATION_IMAGES})"
)
_NO_TASK = (
    "int8 was not tried: without a task spec, how images become the model's input is unknown. Give one (--task), and "
    "images (--data)"
)
_NOT_CHECKED = (
    "the accuracy of the engine was not checked: there are no labelled images for it. Give some that the model has not "
    "seen (--eval-data)"
)


def _shared_warning(shared: int, total: int) -> str:
    return (
        f"{shared} of {total} evaluation images are calibration images too, so the drop looks smaller than it is. Give "
        "images that are not in --data (--eval-data), or leave --eval-data out"
    )


def _jobs(options: CompileOptions) -> tuple[Job, ...]:
    targets = [load_target(name) for name in options.targets] if options.targets else [default_target()]
    if options.batch is not None:
        # Every backend's table has the key. A target that cannot take it says so here, before the long work.
        sizes = list(options.batch.sizes)
        targets = [replace(target, engine={**target.engine, "batch": sizes}) for target in targets]
    names = [target.name for target in targets]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"target given twice: {', '.join(sorted(twice))}", hint="name each target once")
    jobs = []
    for target in targets:
        backend = get_backend(target.backend)
        probe = backend.probe()
        if target.build != "device" and probe.version is None:
            raise BackendMissing(f"target '{target.name}' needs {target.backend}: {probe.missing}", hint=probe.hint)
        precisions = precisions_for(target, backend, options)
        for precision in precisions:
            backend.options(target, precision)
        jobs.append(Job(target=target, backend=backend, precisions=precisions))
    return tuple(jobs)


def _without_task(options: CompileOptions, jobs: tuple[Job, ...], recipe: Recipe) -> Inputs:
    if options.data is not None or options.eval_data is not None or options.train_data is not None:
        raise ConfigError(
            "images were given without a task spec, so how to read them is unknown", hint="give a task spec (--task)"
        )
    return Inputs(
        jobs=jobs,
        spec=None,
        recipe=recipe,
        calibration=None,
        evaluation=None,
        training=None,
        data=DataReport(),
        warnings=(_NO_TASK,),
    )


def _datasets(options: CompileOptions, spec: Spec, recipe: Recipe) -> tuple[Dataset | None, Dataset | None, str]:
    task = get_task(spec.task)
    data = None if options.data is None else task.read_data(options.data, spec)
    if options.eval_data is not None:
        held_out = task.read_data(options.eval_data, spec)
        if not held_out.labelled:
            raise DataError(
                f"{options.eval_data}: evaluation needs labels", hint="sort the images into one folder per class"
            )
        chosen = None if data is None else choose(data, recipe.samples, sampling=recipe.sampling, seed=recipe.seed)
        # The folder's name alone: the bundle keeps the report, and paths are the user's own.
        source = f"--eval-data ({options.eval_data.resolve().name})"
        return chosen, stratified_sample(held_out, options.max_eval, recipe.seed), source
    if data is None:
        return None, None, "none"
    if not data.labelled:
        chosen = choose(data, recipe.samples, sampling=recipe.sampling, seed=recipe.seed)
        return chosen, None, "none: --data has no labels"
    calibration, evaluation = split(
        data, calibration=recipe.samples, sampling=recipe.sampling, seed=recipe.seed, max_eval=options.max_eval
    )
    if not evaluation.samples:
        return calibration, None, "none: --data is too small"
    source = (
        "a seeded split of --data that calibration did not see; if the model was trained on these images it knows "
        "them, and the accuracy is too good"
    )
    return calibration, evaluation, source


def _training(root: Path, spec: Spec, evaluation: Dataset | None) -> Dataset:
    """The images to train on: those that the accuracy gate judges by are left out, also where they are copies."""
    training = get_task(spec.task).read_data(root, spec)
    if evaluation is None:
        return training
    shared = shared_images(evaluation, training)
    rest = tuple(sample for sample in training.samples if sample.path not in shared)
    if not rest:
        raise DataError(
            f"{root}: all of its {len(training)} images are among those that accuracy is judged by",
            hint="give other images to train on, or other ones to judge by (--eval-data)",
        )
    note = f"{len(shared)} of {len(training)} training images are among those that accuracy is judged by: left out"
    return replace(training, samples=rest, notes=(*training.notes, note) if shared else training.notes)
