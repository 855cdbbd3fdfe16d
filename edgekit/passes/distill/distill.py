"""Distillation: a student learns to answer as its teacher does, with or without labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgekit.errors import UserError
from edgekit.objectives import TaskObjective, objective_for
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.distill.hints import matched_hints
from edgekit.passes.distill.objective import Distillation
from edgekit.passes.distill.options import DistillOptions
from edgekit.passes.train.checkpoint import digest_of
from edgekit.passes.train.finetune import TrainImages, recorded
from edgekit.passes.train.loop import Keeping, fit
from edgekit.passes.train.options import TrainOptions
from edgekit.passes.train.pixels import check_takes_images
from edgekit.program import Program
from edgekit.progress import Progress, SilentProgress

__all__ = ["Distill", "check_pair", "distill"]


def distill(
    program: Program,
    teacher: Program,
    images: TrainImages,
    options: TrainOptions | None = None,
    *,
    distillation: DistillOptions | None = None,
    objective: TaskObjective | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> Program:
    """Trains a copy of a program on a teacher's answers; for notebooks. See :class:`Distill`."""
    run = Distill(
        teacher=teacher,
        images=images,
        options=TrainOptions() if options is None else options,
        distillation=DistillOptions() if distillation is None else distillation,
        objective=objective,
        keeping=keeping,
    )
    run.check(program)
    return run.run(program, PassContext(progress=SilentProgress() if progress is None else progress)).program


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Trains a program, the student, on a teacher's answers.

    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531.

    Attributes:
        teacher: Usually the program before it was pruned or quantized; left as it is.
        images: To train on and to compare epochs on. Without labels ``alpha`` must be 1, and epochs are compared by
            the loss.
        options: How long and how.
        distillation: Temperature, weights and hints.
        objective: The task's loss and divergence; None is the plain one.
        keeping: Where the state is kept after each epoch; None keeps none.
    """

    teacher: Program
    images: TrainImages
    options: TrainOptions = field(default_factory=TrainOptions)
    distillation: DistillOptions = field(default_factory=DistillOptions)
    objective: TaskObjective | None = None
    keeping: Keeping | None = None
    name: str = "distill"

    def check(self, program: Program) -> None:
        check_pair(program, self.teacher)

    def run(self, program: Program, context: PassContext) -> PassResult:
        assert program.task is not None
        task = objective_for(program.task) if self.objective is None else self.objective
        hints = matched_hints(program, self.teacher, self.distillation.hints)
        objective = Distillation(self.teacher, task, self.distillation, hints)
        feed, held_out = self.images.feeds(program.task, task, self.options, labelled=objective.needs_labels)
        result, report = fit(
            program,
            feed,
            objective,
            self.options,
            held_out=held_out,
            keeping=self.keeping,
            progress=context.progress,
        )
        trained = recorded(result, self.name, report, feed)
        teacher = {"name": self.teacher.name, "digest": digest_of(self.teacher)}
        record = trained.history[-1]
        record = replace(
            record,
            summary=f"learned from '{self.teacher.name}': {record.summary}",
            details={**record.details, "teacher": teacher},
        )
        return PassResult(program=replace(trained, history=(*trained.history[:-1], record)))


def check_pair(student: Program, teacher: Program) -> None:
    """Refuses a teacher whose answers a student cannot be compared with.

    Raises:
        UserError: One of them takes no batches of images, or their inputs, outputs, labels or pixels differ.
    """
    check_takes_images(student)
    check_takes_images(teacher)
    different = _differences(student, teacher)
    if different:
        raise UserError(
            f"teacher '{teacher.name}' does not fit student '{student.name}': {'; '.join(different)}",
            hint="take a teacher for the same task, labels and [input] table",
        )


def _differences(student: Program, teacher: Program) -> list[str]:
    """Says what keeps two networks from being compared; outputs are matched by their order, whatever their names."""
    found = []
    mine, theirs = ([spec.shape[1:] for spec in program.inputs] for program in (student, teacher))
    if mine != theirs:
        found.append(f"its inputs are {theirs}, the student's {mine}")
    mine, theirs = ([spec.shape[1:] for spec in program.outputs] for program in (student, teacher))
    if mine != theirs:
        found.append(f"its outputs are {theirs}, the student's {mine}")
    if student.task is not None and teacher.task is not None:
        first, second = student.task.input, teacher.task.input
        for name in ("color", "scale", "mean", "std", "dtype"):
            if getattr(first, name) != getattr(second, name):
                found.append(f"it expects {name} = {getattr(second, name)}, the student {getattr(first, name)}")
        labels = [getattr(item.task, "labels", None) for item in (student, teacher)]
        if labels[0] != labels[1]:
            found.append("its labels are others, or in another order")
    return found
