"""Quantization-aware training: the quantized program learns to answer as the float program does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgekit.config import to_dict
from edgekit.data import Dataset
from edgekit.errors import UserError
from edgekit.objectives import TaskObjective, objective_for
from edgekit.passes.aten import is_call
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.distill import Distillation
from edgekit.passes.qat.options import QatOptions
from edgekit.passes.qat.trainable import baked, pairs_of, step_parameters, trainable
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.train import FitReport, HeldOut, Keeping, TrainImages, fit
from edgekit.passes.train.optimizer import Pace
from edgekit.passes.train.pixels import check_takes_images
from edgekit.program import Program, Record, Skipped
from edgekit.progress import Progress, SilentProgress

__all__ = ["Qat", "qat"]


def qat(
    program: Program,
    teacher: Program,
    images: TrainImages,
    options: QatOptions | None = None,
    *,
    objective: TaskObjective | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> Program:
    """Trains a copy of a quantized program; for notebooks. See :class:`Qat`."""
    item = Qat(
        teacher=teacher,
        images=images,
        options=QatOptions() if options is None else options,
        objective=objective,
        keeping=keeping,
    )
    item.check(program)
    return item.run(program, PassContext(progress=SilentProgress() if progress is None else progress)).program


@dataclass(frozen=True, kw_only=True)
class Qat:
    """Trains a quantized program on the answers of its float form.

    Weights, biases and the steps of the grids learn (:func:`edgekit.passes.qat.trainable.trainable`); the graph, and
    with it what is exported, stays as it is. The best state by the held-out score is returned. The given program is one
    of the candidates: where no epoch is better it comes back unchanged, and the record says so.

    Source: Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153, for the steps; Hinton, Vinyals and Dean
    2015, arXiv:1503.02531, for the loss.

    Attributes:
        teacher: The float program of the same interface, preprocessing folded in where the quantized one has it so.
        images: To train on and to compare epochs on; calibration images are not set apart. Labels are not needed while
            ``alpha`` is 1.
        options: How long and how.
        objective: The task's loss and divergence; None is the plain one.
        keeping: Where the state is kept after each epoch; None keeps none.
    """

    teacher: Program
    images: TrainImages
    options: QatOptions = field(default_factory=QatOptions)
    objective: TaskObjective | None = None
    keeping: Keeping | None = None
    name: str = "qat"

    def check(self, program: Program) -> None:
        if not any(is_call(node, {QDQ}) for node in program.graph.graph.nodes):
            raise UserError(f"'{program.name}' is not quantized", hint="run the quantize pass first")
        if any(is_call(node, {QDQ}) for node in self.teacher.graph.graph.nodes):
            raise UserError(f"teacher '{self.teacher.name}' is quantized itself", hint="give the float program")
        if (program.inputs, program.outputs) != (self.teacher.inputs, self.teacher.outputs):
            raise UserError(
                f"teacher '{self.teacher.name}' has another interface than '{program.name}': inputs "
                f"{self.teacher.inputs} and outputs {self.teacher.outputs}, expected {program.inputs} and "
                f"{program.outputs}",
                hint="give the float program that was quantized",
            )
        _takes_frames(program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        assert program.task is not None
        options, training = self.options, self.options.training()
        task = objective_for(program.task) if self.objective is None else self.objective
        objective = Distillation(self.teacher, task, options.distillation())
        frames, labelled = _takes_frames(program), objective.needs_labels
        feed, held_out = self.images.feeds(program.task, task, training, labelled=labelled, frames=frames)
        assert held_out is not None
        if not labelled:
            # Without labels the score is the loss, which sees what a metric on few images does not.
            held_out = HeldOut(_unlabelled(held_out.dataset), program.task, workers=options.workers, frames=frames)
        student = trainable(program)
        steps = step_parameters(student)
        result, report = fit(
            student,
            feed,
            objective,
            training,
            held_out=held_out,
            keeping=self.keeping,
            pace=Pace(names=steps, factor=options.step_rate, until=options.freeze_after),
            progress=context.progress,
        )
        groups, _ = pairs_of(program)
        details = {
            **report.to_details(),
            "unreadable": [image.brief for image in feed.skipped],
            "options": to_dict(options),
            "steps": {"learned": len(steps), "fixed": len(groups.fixed), **_changes(result, steps)},
        }
        record = Record(stage=self.name, summary=report.summary, skipped=groups.fixed, details=details)
        if report.chosen_epoch == 0:
            skipped = (*groups.fixed, Skipped(what="training", where=program.name, why=_why(report)))
            return PassResult(program=program.copied().recorded(replace(record, skipped=skipped)))
        changed = sum(1 for _ in student.graph.parameters())
        return PassResult(program=baked(result, program).recorded(replace(record, changed=changed)))


def _takes_frames(program: Program) -> bool:
    """Whether a program takes raw frames, or else float images.

    Raises:
        UserError: Neither, or it has no task, or takes no batches.
    """
    if program.task is not None and len(program.inputs) == 1:
        image, found = program.task.input, program.inputs[0]
        if found.dtype == image.dtype and found.shape[1:] == (*image.size, image.channels):
            if not program.dynamic_batch:
                raise UserError(
                    f"'{program.name}' takes batches of {found.shape[0]} only, training needs larger ones",
                    hint="export it for any batch: dynamic_shapes={0: torch.export.Dim('batch')}",
                )
            return True
    check_takes_images(program)
    return False


def _unlabelled(dataset: Dataset) -> Dataset:
    samples = tuple(replace(sample, label=None) for sample in dataset.samples)
    return replace(dataset, samples=samples, classes=None)


def _changes(result: Program, steps: tuple[str, ...]) -> dict[str, float]:
    """The smallest and the largest factor by which a step changed."""
    own = dict(result.graph.named_parameters())
    factors = [value.detach().exp() for value in (own[name] for name in steps)]
    lowest, highest = (min(float(item.min()) for item in factors), max(float(item.max()) for item in factors))
    return {"smallest_factor": lowest, "largest_factor": highest}


def _why(report: FitReport) -> str:
    return f"no epoch had a better held-out {report.criterion} than the given program's {report.before:.6g}"
