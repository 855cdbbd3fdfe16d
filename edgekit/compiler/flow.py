"""The flow: model file -> program -> candidates -> gates -> bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.base import Backend
from edgekit.backends.batch import BatchRange
from edgekit.compiler.candidates import MIXED, Candidate, Failure, build_candidate
from edgekit.compiler.derived import Derived
from edgekit.compiler.gates import accuracy_gate, accuracy_of, golden_gate, speed_gate
from edgekit.compiler.golden import golden_from, golden_inputs
from edgekit.compiler.history import history, scheme_name
from edgekit.compiler.images import Images, ImageSets
from edgekit.compiler.inputs import Inputs, Job, check_output
from edgekit.compiler.mixed import mix
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.packing import Packed, pack
from edgekit.compiler.placement import Placement, place
from edgekit.compiler.quantization import Quantized, quantize
from edgekit.compiler.records import CandidateReport, DataReport, TargetReport
from edgekit.compiler.report import CompileReport
from edgekit.compiler.selection import Selection, select
from edgekit.compiler.shaping import StageReport
from edgekit.compiler.shaping.int8 import train_int8
from edgekit.compiler.shaping.learning import keeping_for
from edgekit.compiler.warn import data_warnings, diagnostic_warnings, stage_warnings, target_warnings, training_warnings
from edgekit.errors import EdgekitError, GateFailed, InternalError, ModelError, StageError
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record
from edgekit.progress import Progress
from edgekit.runtime.machine import describe_machine
from edgekit.runtime.session import Session
from edgekit.runtime.tasks import get_runtime_task
from edgekit.runtime.tasks.base import Spec
from edgekit.targets import QuantizeRules
from edgekit.tasks import MetricReport

__all__ = ["Flow", "check_batch", "compile_program", "prepare"]

Array = np.ndarray[Any, Any]


def compile_program(
    program: Program,
    inputs: Inputs,
    options: CompileOptions,
    *,
    images: ImageSets,
    reference: MetricReport | None = None,
    stages: tuple[StageReport, ...] = (),
    progress: Progress,
) -> CompileReport:
    """Takes a program through all targets and writes one bundle; nothing is written before every gate has spoken.

    Args:
        program, inputs, options, images, reference, stages, progress: See :func:`prepare`.

    Raises:
        GateFailed: No candidate of a target passed its gates, or the forced one did not.
        StageError: The forced candidate could not be built, or none could.
        UserError: The program does not fit the task spec, or too many images cannot be read.
    """
    return prepare(program, inputs, options, images=images, reference=reference, stages=stages, progress=progress).run()


def prepare(
    program: Program,
    inputs: Inputs,
    options: CompileOptions,
    *,
    images: ImageSets,
    reference: MetricReport | None = None,
    stages: tuple[StageReport, ...] = (),
    progress: Progress,
) -> Flow:
    """Does what takes no time: folds the program, makes the golden inputs, checks that all fits together.

    Args:
        program: From a frontend.
        inputs: From :func:`edgekit.compiler.inputs.gather`.
        options: The user's wishes.
        images: Opened, from ``inputs``.
        reference: The metric of the network that was given, where stages changed it; None is the program's own.
        stages: What they did, for the report.
        progress: Where progress is shown.

    Raises:
        UserError: The program does not fit the task spec, or the bundle cannot be written.
    """
    check_batch(program, options)
    output = options.output if options.output is not None else Path(f"{program.name}.edge")
    check_output(output)
    context = PassContext(progress=progress)
    passes: list[Pass] = [FoldBatchNorm()]
    if inputs.spec is not None:
        passes.append(FoldPreprocessing())
    floating = run_passes(program, passes, context)
    if options.batch is not None:
        floating = floating.recorded(_batch_record(options.batch))
    calibration = images.calibration
    if options.golden_from_data and calibration is not None:
        golden = golden_from(calibration, floating, count=options.golden)
    else:
        golden = golden_inputs(floating, count=options.golden, seed=inputs.recipe.seed)
    derived = Derived(
        floating=floating,
        reference=reference,
        golden=golden,
        evaluation=images.evaluation,
        dynamic_batch=options.many_images,
        context=context,
        calibration=calibration,
    )
    if inputs.spec is not None:
        _check_decodes(derived, inputs.spec)
    return Flow(
        inputs=inputs,
        options=options,
        output=output,
        context=context,
        calibration=calibration,
        derived=derived,
        stages=stages,
    )


def check_batch(program: Program, options: CompileOptions) -> None:
    """Refuses a program that cannot take the number of images that is asked for.

    Raises:
        ModelError: It takes another fixed number, or one image where many are asked for.
    """
    fixed = {spec.shape[0] if spec.shape else 0 for spec in program.inputs} - {None, 1}
    if fixed:
        shapes = ", ".join(f"'{spec.name}' {spec.shape}" for spec in program.inputs)
        raise ModelError(
            f"'{program.name}' takes only inputs of {shapes}: expected a first dimension that may be 1, the batch",
            hint="export it for a batch of 1, or for any: dynamic_shapes={0: torch.export.Dim('batch')}",
        )
    if options.many_images and not program.dynamic_batch:
        asked = "a dynamic batch" if options.batch is None else f"batch {options.batch}"
        reasons = [item.why for record in program.history for item in record.skipped if item.what == "dynamic batch"]
        raise ModelError(
            f"'{program.name}' takes one image at a time, and {asked} was asked for"
            + (f": {reasons[0]}" if reasons else ""),
            hint="write the model for any number of images and export it with a dynamic batch: torch.export.export("
            "model, args, dynamic_shapes=({0: torch.export.Dim('batch')},)); or compile for one image",
        )


def _batch_record(batch: BatchRange) -> Record:
    details = {"smallest": batch.smallest, "best": batch.best, "largest": batch.largest}
    summary = f"engines take up to {batch.largest} images at once and are tuned for {batch.best}, as asked for"
    return Record(stage="batch", summary=summary, details=details)


def _check_decodes(derived: Derived, spec: Spec) -> None:
    """The task must be able to read the outputs: a wrong list of labels shows here, with or without images."""
    outputs = {name: array[0] for name, array in derived.answers(derived.floating).items()}
    get_runtime_task(spec.task).decode(outputs, spec, (*spec.input.size, spec.input.channels))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """One compilation, from the folded program on.

    Attributes:
        inputs: From :func:`edgekit.compiler.inputs.gather`.
        options: The user's wishes.
        output: The bundle.
        context: For passes.
        calibration: Images that ranges are found on, or None.
        derived: The float program, and what is made of it once.
        stages: What happened to the network before, for the report.
    """

    inputs: Inputs
    options: CompileOptions
    output: Path
    context: PassContext
    calibration: Images | None
    derived: Derived
    stages: tuple[StageReport, ...]

    def int8(self) -> Mapping[QuantizeRules, Quantized]:
        """Makes the int8 program of each scheme, and trains it where that was asked for.

        The processes of ``torchrun`` all come here where int8 is trained: each calibrates for itself, to the same
        numbers, so that no program has to travel, and has its part in the training.
        """
        made: dict[QuantizeRules, Quantized] = {}
        for job in self.inputs.jobs:
            rules = job.target.quantize
            if "int8" in job.precisions and rules not in made:
                made[rules] = self._trained(self._quantize(rules), len(made) + 1)
        return made

    def run(self, int8: Mapping[QuantizeRules, Quantized] | None = None) -> CompileReport:
        """Builds, measures and chooses for each target, and writes the bundle; this is for one process.

        Args:
            int8: From :meth:`int8`; None makes them.

        Raises:
            GateFailed: No candidate of a target passed its gates, or the forced one did not.
            StageError: The forced candidate could not be built, or none could.
            UserError: Too many images cannot be read.
        """
        # Before the long work, so that unreadable images show in seconds.
        reference, output = self.derived.reference, self.output
        quantized = self.int8() if int8 is None else int8
        packed: list[Packed] = []
        reports: list[TargetReport] = []
        for job in self.inputs.jobs:
            outcome, shipped = self._target(job, quantized.get(job.target.quantize))
            reports.append(outcome)
            packed += [Packed(target=job.target, candidate=item, latency=outcome.latency) for item in shipped]
        data = self._data()
        diagnostics = {scheme_name(rules, self.inputs.jobs): item.diagnostics for rules, item in quantized.items()}
        report = CompileReport(
            name=self.derived.floating.name,
            output=output,
            content_digest="",
            bundle_bytes=0,
            float_accuracy=None if reference is None else accuracy_of(reference, None, simulated=True),
            stages=self.stages,
            targets=tuple(reports),
            data=data,
            history=history(floating=self.derived.floating, quantized=quantized, packed=packed, jobs=self.inputs.jobs),
            diagnostics=diagnostics,
            warnings=(
                *self.inputs.warnings,
                *data_warnings(data),
                *stage_warnings(self.stages),
                *(
                    line
                    for rules, item in quantized.items()
                    for line in training_warnings(scheme_name(rules, self.inputs.jobs), item.program.history)
                ),
                *(line for scheme, item in diagnostics.items() for line in diagnostic_warnings(scheme, item)),
                *(line for target in reports for line in target_warnings(target, accuracy_known=reference is not None)),
            ),
            machine=describe_machine(),
        )
        manifest = pack(
            output,
            self.derived.floating,
            packed,
            self.derived.golden,
            golden_source="user" if self.options.golden_from_data else "synthetic",
            spec=self.inputs.spec,
            report=report.to_stored(),
        )
        return replace(report, content_digest=manifest.content_digest, bundle_bytes=output.stat().st_size)

    def _quantize(self, rules: QuantizeRules) -> Quantized:
        images, recipe = self.calibration, self.inputs.recipe
        if images is None:
            raise InternalError("quantization was asked for without data")
        floating = self.derived.floating
        size = recipe.batch_size if floating.dynamic_batch else 1
        data = CalibrationData(source=lambda: images.batches(size), count=len(images), name_of=images.name_of)
        return quantize(floating, rules=rules, recipe=recipe, data=data, context=self.context)

    def _trained(self, quantized: Quantized, number: int) -> Quantized:
        """The int8 program after its own training; layers that go back to float start from the one before it."""
        stage, training = self.options.qat, self.inputs.training
        if stage is None or training is None:
            return quantized
        program = train_int8(
            quantized.program,
            quantized.floating,
            stage,
            training,
            seed=self.inputs.recipe.seed,
            keeping=keeping_for(self.options.checkpoints, f"int8-{number}", resume=self.options.resume),
            context=self.context,
        )
        return replace(quantized, program=program)

    def _target(self, job: Job, quantized: Quantized | None) -> tuple[TargetReport, tuple[Candidate, ...]]:
        target = job.target
        placement = place(target, job.backend)
        candidates, failures = self._built(job, quantized)
        timed = placement.timed and self.options.timing
        with ExitStack() as stack:
            candidates, sessions = self._opened(stack, candidates, job.backend, placement)
            candidates = [self._checked(item, sessions.get(item.precision), placement) for item in candidates]
            if quantized is not None and self._mixes(candidates):
                mixed = self._mixed(stack, job, quantized, sessions, placement)
                candidates += [mixed] if isinstance(mixed, Candidate) else []
                failures += [mixed] if isinstance(mixed, CandidateReport) else []
            if timed:
                feeds = {name: array[:1] for name, array in self.derived.golden.items()}
                seed, progress = self.inputs.recipe.seed, self.context.progress
                candidates = speed_gate(candidates, sessions, feeds, seed=seed, progress=progress)
        asked = None if self.options.precision == "auto" else self.options.precision
        choice = select(candidates, target=target, timed=timed, forced=asked)
        by_precision = {item.precision: item for item in (*failures, *(item.report for item in choice.candidates))}
        order = [item for item in (*job.precisions, MIXED) if item in by_precision]
        reports = tuple(by_precision[precision] for precision in order)
        if not choice.shipped:
            raise _nothing_passed(target.name, reports)
        if self.options.strict:
            _check_executed(target.name, [item.report for item in choice.shipped])
        report = TargetReport(
            target=target.name,
            title=target.title,
            shipped=tuple(item.precision for item in choice.shipped),
            why=_why(choice, placement, timed=timed),
            latency="measured" if timed else "unverified",
            verified_on=placement.verified_on,
            candidates=reports,
        )
        return report, choice.shipped

    def _mixes(self, candidates: Sequence[Candidate]) -> bool:
        """Mixed precision is for an int8 candidate that answers as it should but drops too far."""
        wanted = self.options.precision in ("auto", MIXED)
        return wanted and any(item.precision == "int8" and item.report.gate == "accuracy" for item in candidates)

    def _mixed(
        self,
        stack: ExitStack,
        job: Job,
        quantized: Quantized,
        sessions: dict[str, Session],
        placement: Placement,
    ) -> Candidate | CandidateReport:
        if self.calibration is None:
            raise InternalError("an int8 candidate was made without data")
        mixed = mix(
            stack,
            job,
            quantized=quantized,
            int8=sessions.get("int8"),
            images=self.calibration,
            derived=self.derived,
            options=self.options,
            placement=placement,
            context=self.context,
        )
        if mixed.candidate is None:
            return mixed.report
        if mixed.session is not None:
            sessions[MIXED] = mixed.session
        return mixed.candidate

    def _built(self, job: Job, quantized: Quantized | None) -> tuple[list[Candidate], list[CandidateReport]]:
        outcomes: list[Candidate | Failure] = []
        with self.context.progress.task(f"building for {job.target.name}", len(job.precisions)) as bar:
            for precision in job.precisions:
                outcomes.append(
                    build_candidate(
                        precision,
                        target=job.target,
                        backend=job.backend,
                        quantized=None if quantized is None else quantized.program,
                        derived=self.derived,
                    )
                )
                bar.advance()
        failures = [item for item in outcomes if isinstance(item, Failure)]
        if len(failures) == len(outcomes):
            raise _nothing_built(job.target.name, failures)
        return [item for item in outcomes if isinstance(item, Candidate)], [item.report for item in failures]

    def _opened(
        self, stack: ExitStack, candidates: list[Candidate], backend: Backend, placement: Placement
    ) -> tuple[list[Candidate], dict[str, Session]]:
        """Opens what can be opened here; an engine that does not open is a failed candidate."""
        sessions: dict[str, Session] = {}
        result = []
        with self.context.progress.task("opening engines", len(candidates)) as bar:
            for item in candidates:
                if item.engine is not None and placement.opens(item.precision):
                    try:
                        session = backend.open(placement.opened_as(item.engine), threads=self.options.threads)
                        sessions[item.precision] = stack.enter_context(session)
                    except InternalError:
                        raise
                    except EdgekitError as error:
                        reason = f"the engine does not open: {error.message}"
                        item = replace(item, report=replace(item.report, status="failed", reason=reason))
                result.append(item)
                bar.advance()
        return result, sessions

    def _checked(self, candidate: Candidate, session: Session | None, placement: Placement) -> Candidate:
        if session is not None:
            candidate = golden_gate(candidate, session, self.derived.golden)
        if candidate.report.status != "passed":
            return candidate
        return accuracy_gate(
            candidate,
            session,
            self.derived,
            max_drop=self.options.max_drop,
            simulated=placement.verified_on != "this device",
            progress=self.context.progress,
        )

    def _data(self) -> DataReport:
        """The images as they were used: those that could not be read are known only now."""
        data = self.inputs.data
        calibration, evaluation = (
            () if images is None else images.skipped for images in (self.calibration, self.derived.evaluation)
        )
        return replace(
            data,
            calibration=data.calibration - len(calibration),
            evaluation=data.evaluation - len(evaluation),
            skipped=tuple(image.brief for image in (*calibration, *evaluation)),
        )


def _why(choice: Selection, placement: Placement, *, timed: bool) -> str:
    if timed:
        return choice.why
    return f"{choice.why}; latency unverified: {placement.reason if placement.reason else 'timing is off'}"


def _nothing_built(target: str, failures: list[Failure]) -> EdgekitError:
    reasons = {item.report.reason for item in failures}
    if len(reasons) == 1:
        return failures[0].error
    lines = [f"{item.report.precision}: {item.report.reason}" for item in failures]
    return StageError(f"target '{target}': no candidate could be built\n  " + "\n  ".join(lines))


def _check_executed(target: str, shipped: Sequence[CandidateReport]) -> None:
    """With ``--strict``, what ran otherwise than planned is an error."""
    lines = [f"{item.precision}: {finding}" for item in shipped for finding in item.findings]
    if lines:
        raise GateFailed(
            f"target '{target}': the engine does not run as planned\n  " + "\n  ".join(lines),
            hint="leave --strict out to ship it all the same; the report then shows the finding",
        )


def _nothing_passed(target: str, candidates: Sequence[CandidateReport]) -> GateFailed:
    lines = [f"{item.precision}: {item.reason}" for item in candidates]
    return GateFailed(
        f"target '{target}': no candidate passed its gates\n  " + "\n  ".join(lines),
        hint="allow a larger drop (--max-drop), let layers go back to float (--precision mixed), give more or better "
        "calibration images, or another precision",
    )
