"""The flow: model file -> program -> candidates -> gates -> bundle."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.base import Backend
from edgekit.compiler.candidates import Candidate, Failure, build_candidate
from edgekit.compiler.derived import Derived
from edgekit.compiler.gates import accuracy_gate, accuracy_of, golden_gate, speed_gate
from edgekit.compiler.golden import golden_from, golden_inputs
from edgekit.compiler.images import Images
from edgekit.compiler.inputs import Inputs, Job, check_output
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.packing import Packed, pack
from edgekit.compiler.placement import Placement, place
from edgekit.compiler.records import CandidateReport, DataReport, TargetReport
from edgekit.compiler.report import CompileReport
from edgekit.compiler.selection import Selection, select
from edgekit.compiler.warn import data_warnings, target_warnings
from edgekit.errors import EdgekitError, GateFailed, InternalError, ModelError, StageError
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record
from edgekit.progress import Progress
from edgekit.runtime.machine import describe_machine
from edgekit.runtime.session import Session
from edgekit.runtime.tasks import get_runtime_task
from edgekit.runtime.tasks.base import Spec
from edgekit.targets import QuantizeRules

__all__ = ["compile_program"]

Array = np.ndarray[Any, Any]


def compile_program(program: Program, inputs: Inputs, options: CompileOptions, *, progress: Progress) -> CompileReport:
    """Takes a program through all targets and writes one bundle; nothing is written before every gate has spoken.

    Args:
        program: From a frontend.
        inputs: From :func:`edgekit.compiler.inputs.gather`.
        options: The user's wishes.
        progress: Where progress is shown.

    Raises:
        GateFailed: No candidate of a target passed its gates, or the forced one did not.
        StageError: The forced candidate could not be built, or none could.
        UserError: The program does not fit the task spec, or too many images cannot be read.
    """
    _check_batch(program)
    output = options.output if options.output is not None else Path(f"{program.name}.edge")
    check_output(output)
    context = PassContext(progress=progress)
    passes: list[Pass] = [FoldBatchNorm()]
    if inputs.spec is not None:
        passes.append(FoldPreprocessing())
    floating = run_passes(program, passes, context)
    calibration, evaluation = (
        None if dataset is None or inputs.spec is None else Images(dataset, inputs.spec)
        for dataset in (inputs.calibration, inputs.evaluation)
    )
    if options.golden_from_data and calibration is not None:
        golden = golden_from(calibration, floating, count=options.golden)
    else:
        golden = golden_inputs(floating, count=options.golden, seed=inputs.recipe.seed)
    derived = Derived(
        floating=floating,
        golden=golden,
        evaluation=evaluation,
        dynamic_batch=options.dynamic_batch,
        context=context,
    )
    if inputs.spec is not None:
        _check_decodes(derived, inputs.spec)
    flow = _Flow(inputs=inputs, options=options, context=context, calibration=calibration, derived=derived)
    return flow.run(output)


def _check_batch(program: Program) -> None:
    fixed = {spec.shape[0] if spec.shape else 0 for spec in program.inputs} - {None, 1}
    if fixed:
        shapes = ", ".join(f"'{spec.name}' {spec.shape}" for spec in program.inputs)
        raise ModelError(
            f"'{program.name}' takes only inputs of {shapes}: expected a first dimension that may be 1, the batch",
            hint="export it for a batch of 1, or for any: dynamic_shapes={0: torch.export.Dim('batch')}",
        )


def _check_decodes(derived: Derived, spec: Spec) -> None:
    """The task must be able to read the outputs: a wrong list of labels shows here, with or without images."""
    outputs = {name: array[0] for name, array in derived.answers(derived.floating).items()}
    get_runtime_task(spec.task).decode(outputs, spec, (*spec.input.size, spec.input.channels))


@dataclass(frozen=True, kw_only=True)
class _Flow:
    inputs: Inputs
    options: CompileOptions
    context: PassContext
    calibration: Images | None
    derived: Derived

    def run(self, output: Path) -> CompileReport:
        # Before the long work, so that unreadable images show in seconds.
        reference = self.derived.reference
        quantized: dict[QuantizeRules, Program] = {}
        packed: list[Packed] = []
        reports: list[TargetReport] = []
        for job in self.inputs.jobs:
            rules = job.target.quantize
            if "int8" in job.precisions and rules not in quantized:
                quantized[rules] = self._quantize(rules)
            outcome, shipped = self._target(job, quantized.get(rules))
            reports.append(outcome)
            packed += [Packed(target=job.target, candidate=item, latency=outcome.latency) for item in shipped]
        data = self._data()
        report = CompileReport(
            name=self.derived.floating.name,
            output=output,
            content_digest="",
            bundle_bytes=0,
            float_accuracy=None if reference is None else accuracy_of(reference, None, simulated=True),
            targets=tuple(reports),
            data=data,
            history=self._history(quantized, packed),
            warnings=(
                *self.inputs.warnings,
                *data_warnings(data),
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

    def _quantize(self, rules: QuantizeRules) -> Program:
        images, recipe = self.calibration, self.inputs.recipe
        if images is None:
            raise InternalError("quantization was asked for without data")
        floating = self.derived.floating
        size = recipe.batch_size if floating.dynamic_batch else 1
        data = CalibrationData(source=lambda: images.batches(size), count=len(images), name_of=images.name_of)
        quantize = Quantize(rules=rules, recipe=recipe, data=data)
        return run_passes(floating, [quantize], self.context)

    def _target(self, job: Job, quantized: Program | None) -> tuple[TargetReport, tuple[Candidate, ...]]:
        target = job.target
        placement = place(target, job.backend)
        candidates, failures = self._built(job, quantized)
        timed = placement.timed and self.options.timing
        with ExitStack() as stack:
            candidates, sessions = self._opened(stack, candidates, job.backend, placement)
            candidates = [self._checked(item, sessions.get(item.precision), placement) for item in candidates]
            if timed:
                feeds = {name: array[:1] for name, array in self.derived.golden.items()}
                seed, progress = self.inputs.recipe.seed, self.context.progress
                candidates = speed_gate(candidates, sessions, feeds, seed=seed, progress=progress)
        choice = select(candidates, target=target, timed=timed, forced=self.options.precision != "auto")
        by_precision = {item.precision: item for item in (*failures, *(item.report for item in choice.candidates))}
        if not choice.shipped:
            raise _nothing_passed(target.name, [by_precision[precision] for precision in job.precisions])
        report = TargetReport(
            target=target.name,
            title=target.title,
            shipped=tuple(item.precision for item in choice.shipped),
            why=_why(choice, placement, timed=timed),
            latency="measured" if timed else "unverified",
            verified_on=placement.verified_on,
            candidates=tuple(by_precision[precision] for precision in job.precisions),
        )
        return report, choice.shipped

    def _built(self, job: Job, quantized: Program | None) -> tuple[list[Candidate], list[CandidateReport]]:
        outcomes: list[Candidate | Failure] = []
        with self.context.progress.task(f"building for {job.target.name}", len(job.precisions)) as bar:
            for precision in job.precisions:
                outcomes.append(
                    build_candidate(
                        precision, target=job.target, backend=job.backend, quantized=quantized, derived=self.derived
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

    def _history(self, quantized: dict[QuantizeRules, Program], packed: list[Packed]) -> dict[str, tuple[Record, ...]]:
        """What every stage did: to the float program, and from there to each scheme."""
        floating = self.derived.floating
        history = {"float": floating.history}
        for number, (rules, program) in enumerate(quantized.items()):
            names = [job.target.name for job in self.inputs.jobs if job.target.quantize == rules]
            history[f"int8 {number + 1}: {', '.join(names)}"] = program.history[len(floating.history) :]
        half = [
            item for item in packed if item.candidate.program is not floating and item.candidate.precision == "fp16"
        ]
        if half:
            names = [item.target.name for item in half]
            history[f"fp16: {', '.join(names)}"] = half[0].candidate.program.history[len(floating.history) :]
        return history


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


def _nothing_passed(target: str, candidates: list[CandidateReport]) -> GateFailed:
    lines = [f"{item.precision}: {item.reason}" for item in candidates]
    return GateFailed(
        f"target '{target}': no candidate passed its gates\n  " + "\n  ".join(lines),
        hint="allow a larger drop (--max-drop), give more or better calibration images, or another precision",
    )
