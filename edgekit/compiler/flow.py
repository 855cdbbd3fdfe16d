"""The flow: model file -> program -> candidates -> gates -> bundle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.backends.base import Backend
from edgekit.compiler.candidates import Candidate, Failure, build_candidate, precisions_for
from edgekit.compiler.gates import accuracy_gate, accuracy_of, golden_gate, speed_gate
from edgekit.compiler.images import batches_of, evaluate_program, golden_inputs, prepared
from edgekit.compiler.inputs import Inputs
from edgekit.compiler.options import CompileOptions
from edgekit.compiler.packing import Packed, pack
from edgekit.compiler.placement import Placement, place
from edgekit.compiler.records import CandidateReport, TargetReport
from edgekit.compiler.report import CompileReport
from edgekit.compiler.selection import select
from edgekit.errors import GateFailed, InternalError
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.quantize import Quantize
from edgekit.program import Program, Record
from edgekit.progress import Progress
from edgekit.runtime.machine import describe_machine
from edgekit.targets import QuantizeRules, Target
from edgekit.tasks import MetricReport

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
        UserError: The program does not fit the task spec.
    """
    flow = _Flow(inputs=inputs, options=options, context=PassContext(progress=progress))
    return flow.run(program)


@dataclass(frozen=True, kw_only=True)
class _Flow:
    inputs: Inputs
    options: CompileOptions
    context: PassContext

    def run(self, program: Program) -> CompileReport:
        inputs, options = self.inputs, self.options
        passes: list[Pass] = [FoldBatchNorm()]
        if inputs.spec is not None:
            passes.append(FoldPreprocessing())
        floating = run_passes(program, passes, self.context)
        golden = self._golden(floating)
        reference = self._reference(floating)
        quantized: dict[QuantizeRules, Program] = {}
        packed: list[Packed] = []
        reports: list[TargetReport] = []
        for target, backend in inputs.targets:
            precisions = precisions_for(target, backend, options, has_data=inputs.calibration is not None)
            if "int8" in precisions and target.quantize not in quantized:
                quantized[target.quantize] = self._quantize(floating, target.quantize)
            report, kept = self._target(
                target, backend, precisions, floating, quantized.get(target.quantize), golden, reference
            )
            reports.append(report)
            packed += [Packed(target=target, candidate=item, latency=report.latency) for item in kept]
        history = {"float": floating.history}
        for number, (rules, item) in enumerate(quantized.items()):
            names = [target.name for target, _ in inputs.targets if target.quantize == rules]
            history[f"int8 {number + 1}: {', '.join(names)}"] = item.history[len(floating.history) :]
        return self._write(floating, packed, reports, golden, reference, history)

    def _golden(self, floating: Program) -> dict[str, Array]:
        if not self.options.golden_from_data:
            return golden_inputs(floating, count=self.options.golden, seed=self.inputs.recipe.seed)
        if self.inputs.calibration is None or self.inputs.spec is None:
            raise InternalError("golden inputs from data were asked for without data")
        images = [
            image
            for _, image in zip(
                range(self.options.golden), prepared(self.inputs.calibration, self.inputs.spec), strict=False
            )
        ]
        return {floating.inputs[0].name: np.stack(images)}

    def _reference(self, floating: Program) -> MetricReport | None:
        if self.inputs.evaluation is None or self.inputs.spec is None:
            return None
        return evaluate_program(
            floating, self.inputs.spec, self.inputs.evaluation, label="evaluating float", progress=self.context.progress
        )

    def _quantize(self, floating: Program, rules: QuantizeRules) -> Program:
        calibration, spec, recipe = self.inputs.calibration, self.inputs.spec, self.inputs.recipe
        if calibration is None or spec is None:
            raise InternalError("quantization was asked for without data")
        size = recipe.batch_size if floating.dynamic_batch else 1
        quantize = Quantize(
            rules=rules, recipe=recipe, batches=batches_of(calibration, spec, size=size), count=len(calibration)
        )
        return run_passes(floating, [quantize], self.context)

    def _target(
        self,
        target: Target,
        backend: Backend,
        precisions: tuple[str, ...],
        floating: Program,
        quantized: Program | None,
        golden: Mapping[str, Array],
        reference: MetricReport | None,
    ) -> tuple[TargetReport, list[Candidate]]:
        placement = place(target, backend)
        outcomes = [
            build_candidate(
                precision,
                target=target,
                backend=backend,
                floating=floating,
                quantized=quantized,
                golden=golden,
                dynamic_batch=self.options.dynamic_batch,
                context=self.context,
            )
            for precision in precisions
        ]
        failures = [item for item in outcomes if isinstance(item, Failure)]
        if len(failures) == len(outcomes):
            raise failures[0].error
        candidates = [item for item in outcomes if isinstance(item, Candidate)]
        timed = placement.timed and self.options.timing
        with ExitStack() as stack:
            candidates = self._gated(stack, candidates, backend, placement, golden, reference, timed=timed)
        choice = select(candidates, target=target, timed=timed, forced=self.options.precision != "auto")
        if not choice.shipped:
            lines = [f"{item.precision}: {item.report.reason}" for item in candidates]
            lines += [f"{item.report.precision}: {item.report.reason}" for item in failures]
            raise GateFailed(
                f"target '{target.name}': no candidate passed its gates\n  " + "\n  ".join(lines),
                hint="allow a larger drop (--max-drop), give more or better calibration images, or another precision",
            )
        by_precision: dict[str, CandidateReport] = {item.report.precision: item.report for item in failures}
        by_precision.update({item.precision: item.report for item in choice.candidates})
        report = TargetReport(
            target=target.name,
            title=target.title,
            shipped=tuple(item.precision for item in choice.shipped),
            why=choice.why if timed else f"{choice.why}; latency unverified: {placement.reason or 'timing is off'}",
            latency="measured" if timed else "unverified",
            verified_on=placement.verified_on,
            candidates=tuple(by_precision[precision] for precision in precisions),
        )
        return report, list(choice.shipped)

    def _gated(
        self,
        stack: ExitStack,
        candidates: list[Candidate],
        backend: Backend,
        placement: Placement,
        golden: Mapping[str, Array],
        reference: MetricReport | None,
        *,
        timed: bool,
    ) -> list[Candidate]:
        progress = self.context.progress
        sessions = {}
        if placement.opens:
            for position, item in enumerate(candidates):
                if item.engine is None:
                    continue
                engine = placement.opened_as(item.engine)
                session = stack.enter_context(backend.open(engine, threads=self.options.threads))
                sessions[item.precision] = session
                candidates[position] = golden_gate(item, session, golden)
        if reference is not None:
            assert self.inputs.spec is not None
            assert self.inputs.evaluation is not None
            for position, item in enumerate(candidates):
                if item.report.status == "passed":
                    candidates[position] = accuracy_gate(
                        item,
                        sessions.get(item.precision),
                        spec=self.inputs.spec,
                        dataset=self.inputs.evaluation,
                        reference=reference,
                        max_drop=self.options.max_drop,
                        placement=placement,
                        progress=progress,
                    )
        if timed:
            feeds = {name: array[:1] for name, array in golden.items()}
            candidates = speed_gate(candidates, sessions, feeds, seed=self.inputs.recipe.seed, progress=progress)
        return candidates

    def _write(
        self,
        floating: Program,
        packed: list[Packed],
        targets: list[TargetReport],
        golden: Mapping[str, Array],
        reference: MetricReport | None,
        history: Mapping[str, tuple[Record, ...]],
    ) -> CompileReport:
        output = self.options.output if self.options.output is not None else Path(f"{floating.name}.edge")
        warnings = [*self.inputs.warnings]
        for item in targets:
            warnings += [
                f"{item.target}: {candidate.precision} was {candidate.status}: {candidate.reason}"
                for candidate in item.candidates
                if candidate.status in ("rejected", "failed")
            ]
            warnings += [
                f"{item.target}: {finding}"
                for candidate in item.candidates
                if candidate.status == "shipped"
                for finding in candidate.findings
            ]
        report = CompileReport(
            name=floating.name,
            output=output,
            content_digest="",
            bundle_bytes=0,
            float_accuracy=None if reference is None else accuracy_of(reference, None, simulated=True),
            targets=tuple(targets),
            data=self.inputs.data,
            history=history,
            warnings=tuple(warnings),
            machine=describe_machine(),
        )
        source: Literal["user", "synthetic"] = "user" if self.options.golden_from_data else "synthetic"
        manifest = pack(
            output, floating, packed, golden, golden_source=source, spec=self.inputs.spec, report=report.to_dict()
        )
        return replace(report, content_digest=manifest.content_digest, bundle_bytes=output.stat().st_size)
