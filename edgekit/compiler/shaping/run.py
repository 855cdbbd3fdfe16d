"""Runs the stages: each result is measured on the held-back images, and one that costs too much is rolled back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from edgekit.compiler.gates import accuracy_of
from edgekit.compiler.images import Images, program_answers
from edgekit.compiler.records import Accuracy
from edgekit.compiler.shaping.clock import EngineClock
from edgekit.compiler.shaping.learning import keeping_for, training_images
from edgekit.compiler.shaping.planfile import PlanFile
from edgekit.compiler.shaping.records import StageLatency, StageReport
from edgekit.compiler.shaping.stages import DistillStage, PruneStage, QatStage, Stage, in_steps
from edgekit.data import Dataset
from edgekit.errors import InternalError
from edgekit.evaluate import score
from edgekit.passes import PassContext, run_passes
from edgekit.passes.distill import Distill
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.prune import Measures, Prune, multiply_accumulates
from edgekit.passes.train.pixels import PixelScale
from edgekit.passes.train.world import World, joined_world
from edgekit.program import Program
from edgekit.tasks import MetricReport

__all__ = ["Shaped", "ShapingData", "grouped", "shape"]

# Enough to rank channels and blocks by; more changes the order little and costs a pass each.
_RANKING_IMAGES = 256
_RANKING_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ShapingData:
    """What the stages learn from and are judged by.

    Attributes:
        training: To train on; None where no stage trains.
        calibration: For importance by measurement; None where there are none.
        evaluation: Labelled images that no stage trains on; None judges nothing.
    """

    training: Dataset | None
    calibration: Images | None
    evaluation: Images | None


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """The outcome.

    Attributes:
        program: After the last stage that was kept.
        reports: One per stage (a pruning and its recovery are one).
        reference: The given network's metric, against which drops are measured; None without labelled images.
    """

    program: Program
    reference: MetricReport | None
    reports: tuple[StageReport, ...]


def grouped(stages: Sequence[Stage]) -> tuple[tuple[Stage, ...], ...]:
    """Puts each pruning together with the training that directly follows it: they are judged as one."""
    groups: list[tuple[Stage, ...]] = []
    for stage in stages:
        if isinstance(stage, QatStage):
            continue  # trains what does not exist before quantization
        before = groups[-1] if groups else ()
        if isinstance(stage, DistillStage) and before and isinstance(before[-1], PruneStage):
            groups[-1] = (*before, stage)
        else:
            groups.append((stage,))
    return tuple(groups)


def shape(
    program: Program,
    stages: Sequence[Stage],
    data: ShapingData,
    *,
    given: Program,
    teacher: Program,
    clock: EngineClock | None,
    align: int,
    max_drop: float,
    seed: int,
    checkpoints: Path | None,
    resume: bool,
    context: PassContext,
) -> Shaped:
    """Runs stages on a program, before anything is folded.

    Args:
        program: From a frontend; a student that is rolled back leaves the given network in its place.
        stages: In order.
        data: Images.
        given: The network whose accuracy is the measure: the program itself, or where a student takes its place, the
            one before it.
        teacher: Whose answers are learned: the given network, or another one.
        clock: Of the target that is timed here; None where none is.
        align: Channel alignment where a stage names none.
        max_drop: Largest accepted drop of the metric below the given network's, in points; beyond it a stage is rolled
            back.
        seed: Of every random choice.
        checkpoints: Folder for the state of trainings, renewed after each epoch; None keeps none.
        resume: Go on where the checkpoints are.
        context: For passes.

    Raises:
        UserError: A stage does not fit the program or the images.
        StageError: A stage failed; nothing is lost but its own work.
    """
    with joined_world("auto") as world:
        run = _Run(
            data=data,
            teacher=teacher,
            clock=clock,
            align=align,
            seed=seed,
            checkpoints=checkpoints,
            resume=resume,
            context=context,
            world=world,
        )
        reference = run.metric(given, "evaluating the given network")
        reports: list[StageReport] = []
        before = given
        for index, group in enumerate(grouped(stages)):
            tried = run.stages(program, group, index)
            measured = run.metric(tried, f"evaluating after stage {index + 1}")
            report = replace(_report(group, tried, measured, reference, max_drop), latency=run.latency(tried, group))
            # Every process must go the same way, whatever the last digits of its own measurement.
            kept = world.from_leader(report.kept)
            reports.append(replace(report, kept=kept))
            program = before = tried if kept else before
        return Shaped(program=program, reference=reference, reports=tuple(reports))


@dataclass(frozen=True, kw_only=True)
class _Run:
    data: ShapingData
    teacher: Program
    clock: EngineClock | None
    align: int
    seed: int
    checkpoints: Path | None
    resume: bool
    context: PassContext
    world: World

    def stages(self, program: Program, group: Sequence[Stage], index: int) -> Program:
        whole = multiply_accumulates(program)
        for number, stage in enumerate(in_steps(group), 1):
            if isinstance(stage, PruneStage):
                program = self._pruned(program, stage, whole, f"{index + 1}-{number}-prune")
            elif isinstance(stage, DistillStage):
                training = self._distill(stage, f"{index + 1}-{number}-distill")
                program = run_passes(program, [training], self.context)
        return program

    def latency(self, program: Program, group: Sequence[Stage]) -> StageLatency | None:
        """Times a pruned network against the given one, in the process that goes on."""
        pruned = any(isinstance(stage, PruneStage) for stage in group)
        return self.clock.compare(program) if pruned and self.clock is not None and self.world.leads else None

    def metric(self, program: Program, label: str) -> MetricReport | None:
        images = self.data.evaluation
        if images is None:
            return None
        folded = run_passes(program, [FoldBatchNorm(), FoldPreprocessing()], self.context)
        with self.context.progress.task(label, len(images)) as bar:
            return score(images.spec, program_answers(folded, images, bar))

    def _pruned(self, program: Program, stage: PruneStage, whole: float, name: str) -> Program:
        """Prunes as one process chose, now or before the training was interrupted.

        A share of the arithmetic is of ``whole``, that of the group's first network.
        """
        if stage.keep is not None:
            left = stage.keep * whole / multiply_accumulates(program)
            if left >= 1:
                return program  # the step before went as far, since widths are rounded
            stage = replace(stage, keep=left)
        images = self.data.calibration
        batches = None if images is None else partial(_float_batches, images)
        prune = Prune(
            options=stage.options(align=self.align, seed=self.seed),
            measures=Measures(batches=batches, clock=self.clock),
        )
        prune.check(program)
        plan = None
        if self.world.leads:
            file = None
            if self.checkpoints is not None:
                file = PlanFile(folder=self.checkpoints / name, resume=self.resume)
            plan = None if file is None else file.read(program, prune.options)
            if plan is None:
                plan = prune.choose(program, self.context.progress)
                if file is not None:
                    file.write(plan, program, prune.options)
        return run_passes(program, [replace(prune, plan=self.world.from_leader(plan))], self.context)

    def _distill(self, stage: DistillStage, name: str) -> Distill:
        training = self.data.training
        if training is None:
            raise InternalError("a stage trains and there are no images")
        return Distill(
            teacher=self.teacher,
            images=training_images(training, stage),
            options=stage.training(seed=self.seed),
            distillation=stage.distillation(labelled=training.labelled),
            keeping=keeping_for(self.checkpoints, name, resume=self.resume),
        )


def _float_batches(images: Images) -> Iterator[tuple[torch.Tensor, ...]]:
    """The first calibration images as the program takes them before its preprocessing is folded in."""
    scale = PixelScale(images.spec.input, torch.device("cpu"))
    seen = 0
    for (pixels,) in images.batches(_RANKING_BATCH):
        if seen >= _RANKING_IMAGES:
            return
        seen += len(pixels)
        yield (scale.normalised(scale.shares(pixels)),)


def _report(
    group: Sequence[Stage],
    tried: Program,
    measured: MetricReport | None,
    reference: MetricReport | None,
    max_drop: float,
) -> StageReport:
    accuracy: Accuracy | None = None
    kept, why = True, "kept; not judged: there are no labelled images"
    if measured is not None and reference is not None:
        accuracy = accuracy_of(measured, reference, simulated=True)
        if accuracy.drop is None:
            raise InternalError("a stage's accuracy has no reference")
        kept = accuracy.drop.estimate <= max_drop
        bound = f"{accuracy.drop.estimate:.2f} points below the given network, at most {max_drop:.2f} allowed"
        why = f"kept: {bound}" if kept else f"rolled back: {bound}"
    return StageReport(
        title=", ".join(stage.title for stage in group),
        kept=kept,
        why=why,
        accuracy=accuracy,
        macs=multiply_accumulates(tried),
        parameters=tried.parameter_count,
    )
