"""Everything that a compilation needs from outside, looked at before any work starts, so that a typo costs a second."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.backends import get_backend
from edgekit.backends.base import Backend
from edgekit.calibration import Recipe, load_recipe
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.records import DataReport
from edgekit.data import MIN_CALIBRATION_IMAGES, Dataset, calibration_warnings, choose, split, stratified_sample
from edgekit.errors import BackendMissing, ConfigError, DataError, UserError
from edgekit.runtime.machine import default_target
from edgekit.runtime.tasks import load_spec
from edgekit.runtime.tasks.base import Spec
from edgekit.targets import Target, load_target
from edgekit.tasks import get_task

__all__ = ["Inputs", "gather"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The checked inputs of a compilation.

    Attributes:
        targets: Each with its backend, in the order asked for.
        spec: The task spec, or None for a raw model.
        recipe: With the user's overrides.
        calibration: Images for ranges, or None.
        evaluation: Labelled images for the accuracy gate, or None.
        data: For the report.
        warnings: What is doubtful about them.
    """

    targets: tuple[tuple[Target, Backend], ...]
    spec: Spec | None
    recipe: Recipe
    calibration: Dataset | None
    evaluation: Dataset | None
    data: DataReport
    warnings: tuple[str, ...]


def gather(options: CompileOptions) -> Inputs:
    """Loads targets, spec, recipe and lists of images.

    Raises:
        UserError: Anything is missing, unreadable, unknown or contradictory; one of its subclasses says which.
    """
    targets = _targets(options)
    spec = load_spec(options.task) if isinstance(options.task, Path) else options.task
    recipe = load_recipe(options.recipe)
    recipe = replace(
        recipe,
        samples=recipe.samples if options.samples is None else options.samples,
        seed=recipe.seed if options.seed is None else options.seed,
    )
    if options.output is not None:
        _check_output(options.output)
    if spec is None:
        if options.data is not None or options.eval_data is not None:
            raise ConfigError(
                "images were given without a task spec, so how to read them is unknown",
                hint="give a task spec (--task)",
            )
        return Inputs(
            targets=targets,
            spec=None,
            recipe=recipe,
            calibration=None,
            evaluation=None,
            data=DataReport(),
            warnings=(_NO_DATA,),
        )
    calibration, evaluation, source = _datasets(options, spec, recipe)
    warnings = (
        [_NO_DATA] if calibration is None else [*calibration_warnings(calibration, getattr(spec, "labels", None))]
    )
    if evaluation is None:
        warnings.append(_NO_LABELS)
    notes = tuple(note for dataset in (calibration, evaluation) if dataset is not None for note in dataset.notes)
    data = DataReport(
        calibration=0 if calibration is None else len(calibration),
        evaluation=0 if evaluation is None else len(evaluation),
        evaluation_source=source,
        notes=tuple(dict.fromkeys(notes)),
    )
    return Inputs(
        targets=targets,
        spec=spec,
        recipe=recipe,
        calibration=calibration,
        evaluation=evaluation,
        data=data,
        warnings=tuple(warnings),
    )


_NO_DATA = (
    "int8 was not tried: it needs calibration images. About 300 of the kind that the device will see, in a folder per "
    f"class, also give the accuracy of every candidate (--data; at least {MIN_CALIBRATION_IMAGES})"
)
_NO_LABELS = (
    "the accuracy of the engine was not checked: there are no labelled images. Give some that the model has not seen "
    "(--eval-data)"
)


def _targets(options: CompileOptions) -> tuple[tuple[Target, Backend], ...]:
    targets = [load_target(name) for name in options.targets] if options.targets else [default_target()]
    names = [target.name for target in targets]
    if len(set(names)) != len(names):
        raise ConfigError(f"the same target was given twice: {', '.join(names)}", hint="name each target once")
    pairs = []
    for target in targets:
        backend = get_backend(target.backend)
        probe = backend.probe()
        if target.build == "here" and probe.version is None:
            raise BackendMissing(f"target '{target.name}' needs {target.backend}: {probe.missing}", hint=probe.hint)
        pairs.append((target, backend))
    return tuple(pairs)


def _datasets(options: CompileOptions, spec: Spec, recipe: Recipe) -> tuple[Dataset | None, Dataset | None, str]:
    task = get_task(spec.task)
    data = None if options.data is None else task.read_data(options.data, spec)
    held_out = None if options.eval_data is None else task.read_data(options.eval_data, spec)
    if held_out is not None and not held_out.labelled:
        raise DataError(
            f"{options.eval_data}: evaluation needs labels", hint="sort the images into one folder per class"
        )
    if held_out is not None:
        chosen = None if data is None else choose(data, recipe.samples, sampling=recipe.sampling, seed=recipe.seed)
        return chosen, stratified_sample(held_out, options.max_eval, recipe.seed), f"--eval-data {options.eval_data}"
    if data is None:
        return None, None, "none"
    if not data.labelled:
        return (
            choose(data, recipe.samples, sampling=recipe.sampling, seed=recipe.seed),
            None,
            "none: --data has no labels",
        )
    calibration, evaluation = split(
        data, calibration=recipe.samples, sampling=recipe.sampling, seed=recipe.seed, max_eval=options.max_eval
    )
    source = (
        "a seeded split of --data that calibration did not see; if the model was trained on these images it knows "
        "them, and the accuracy is too good"
    )
    return (
        calibration,
        evaluation if len(evaluation) else None,
        source if len(evaluation) else "none: --data is too small",
    )


def _check_output(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file", hint=f"for instance {path / 'model.edge'}")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{path}: the folder {parent} does not exist", hint="make it first, or choose another output")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{path}: the folder {parent} cannot be written to", hint="choose another output")
