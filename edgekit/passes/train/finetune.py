"""Fine-tuning: a program goes on learning from labelled images, by its task's own loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgekit.augmentation import Augmentation
from edgekit.data import Dataset, hold_back
from edgekit.errors import DataError
from edgekit.objectives import TaskObjective, objective_for
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.train.evaluation import HeldOut
from edgekit.passes.train.feed import Feed
from edgekit.passes.train.loop import Keeping, fit
from edgekit.passes.train.objective import Supervised
from edgekit.passes.train.options import TrainOptions
from edgekit.passes.train.pixels import check_takes_images
from edgekit.passes.train.report import FitReport
from edgekit.program import Program, Record
from edgekit.progress import Progress, SilentProgress
from edgekit.runtime.tasks.base import Spec

__all__ = ["AS_THEY_ARE", "FineTune", "TrainImages", "fine_tune", "recorded"]

AS_THEY_ARE = Augmentation(name="none", title="Images as they are")


@dataclass(frozen=True, kw_only=True)
class TrainImages:
    """The images of a training, and how they are used.

    Attributes:
        data: To train on.
        held_out: To compare epochs on; None holds back ``TrainOptions.held_back`` of ``data``.
        augmentation: How images are varied; see :func:`edgekit.augmentation.load_augmentation`.
        balanced: Show every class as often as any other.
    """

    data: Dataset
    held_out: Dataset | None = None
    augmentation: Augmentation = AS_THEY_ARE
    balanced: bool = False

    def feeds(
        self, spec: Spec, task: TaskObjective, options: TrainOptions, *, labelled: bool
    ) -> tuple[Feed, HeldOut | None]:
        """Returns the batches to train on, and what is held out.

        Args:
            spec: The task spec.
            task: Turns labels into targets.
            options: Give batch size, seed, and the share to hold back.
            labelled: Whether the losses need labels.

        Raises:
            DataError: There are no images, labels are needed and missing or not the task's, or none are left to train
                on.
            UserError: The augmentation does not fit the pixels.
        """
        for dataset in (self.data, self.held_out):
            _check_classes(dataset, spec)
        training, held = self.data, self.held_out
        if held is None and options.held_back > 0:
            training, held = hold_back(training, options.held_back, seed=options.seed)
        feed = Feed(
            training,
            spec.input,
            task,
            options,
            augmentation=self.augmentation,
            labelled=labelled,
            balanced=self.balanced,
        )
        return feed, None if held is None else HeldOut(held, spec, workers=options.workers)


def fine_tune(
    program: Program,
    images: TrainImages,
    options: TrainOptions | None = None,
    *,
    objective: TaskObjective | None = None,
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> Program:
    """Trains a copy of a program on labelled images; for notebooks. See :class:`FineTune`."""
    tuning = FineTune(
        images=images,
        options=TrainOptions() if options is None else options,
        objective=objective,
        keeping=keeping,
    )
    tuning.check(program)
    return tuning.run(program, PassContext(progress=SilentProgress() if progress is None else progress)).program


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Trains a program on labelled images.

    Attributes:
        images: To train on and to compare epochs on.
        options: How long and how.
        objective: The loss; None is the task's plain one.
        keeping: Where the state is kept after each epoch; None keeps none.
    """

    images: TrainImages
    options: TrainOptions = field(default_factory=TrainOptions)
    objective: TaskObjective | None = None
    keeping: Keeping | None = None
    name: str = "fine-tune"

    def check(self, program: Program) -> None:
        check_takes_images(program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        assert program.task is not None
        task = objective_for(program.task) if self.objective is None else self.objective
        feed, held_out = self.images.feeds(program.task, task, self.options, labelled=True)
        result, report = fit(
            program,
            feed,
            Supervised(task),
            self.options,
            held_out=held_out,
            keeping=self.keeping,
            progress=context.progress,
        )
        return PassResult(program=recorded(result, self.name, report, feed))


def _check_classes(dataset: Dataset | None, spec: Spec) -> None:
    """A label counts outputs: classes in another order would be learned, and measured, as each other."""
    labels = getattr(spec, "labels", None)
    if dataset is not None and dataset.classes is not None and labels is not None and dataset.classes != labels:
        raise DataError(
            f"the classes of the images ({', '.join(dataset.classes[:5])}, ...) are not the task's labels "
            f"({', '.join(labels[:5])}, ...), or in another order",
            hint="read the folder with the task's labels: read_folder(path, spec.labels)",
        )


def recorded(program: Program, stage: str, report: FitReport, feed: Feed) -> Program:
    """Returns a trained program with one line of history on what happened."""
    details = report.to_details()
    skipped = [image.brief for image in feed.skipped]
    record = Record(stage=stage, summary=report.summary, changed=sum(1 for _ in program.graph.parameters()))
    return program.recorded(replace(record, details={**details, "unreadable": skipped}))
