"""Structured pruning of a program: choose, cut, and check that what is left computes the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit.config import to_dict
from edgekit.errors import ConfigError
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.prune.arithmetic import Arithmetic
from edgekit.passes.prune.flow import Flow, trace
from edgekit.passes.prune.options import PruneOptions
from edgekit.passes.prune.oracle import check_exact
from edgekit.passes.prune.plan import Measures, Plan, exclude, make_plan, without
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.shuffle import unfolded_shuffles
from edgekit.passes.prune.surgery import cut_out
from edgekit.passes.prune.units import find_groups, find_kept
from edgekit.program import Program, Record, Skipped
from edgekit.progress import Progress, SilentProgress

__all__ = ["Prune", "multiply_accumulates", "prune"]

_STAGE = "prune"
_CLOSE = 0.05


def prune(
    program: Program,
    options: PruneOptions,
    *,
    measures: Measures | None = None,
    progress: Progress | None = None,
) -> Program:
    """Returns a pruned copy of a program; for notebooks. See :class:`Prune`."""
    run = Prune(options=options, measures=Measures() if measures is None else measures)
    run.check(program)
    return run.run(program, PassContext(progress=SilentProgress() if progress is None else progress)).program


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Removes channels, residual blocks, or both.

    Attributes:
        options: What to remove, and how much.
        measures: Images, loss and clock, as far as the options need them.
        plan: What leaves, from :meth:`choose` on the same program; None chooses.
    """

    options: PruneOptions
    measures: Measures = field(default_factory=Measures)
    plan: Plan | None = None

    @property
    def name(self) -> str:
        """The name in histories."""
        return _STAGE

    def check(self, program: Program) -> None:
        """Refuses what needs images or a clock and has none.

        Raises:
            ConfigError: There is nothing to measure on.
        """
        options = self.options
        if options.latency is not None and self.measures.clock is None:
            raise ConfigError("prune: latency is measured on the target, and it cannot be timed here")
        if options.latency is not None:
            needs = "latency"
        else:
            needs = "removing blocks" if options.removes == "blocks" else "importance 'taylor'"
        measured = options.latency is not None or options.removes == "blocks" or options.importance == "taylor"
        if measured and self.measures.batches is None:
            raise ConfigError(f"prune: {needs} is measured on images, and there are none", hint="give --data")

    def choose(self, program: Program, progress: Progress) -> Plan:
        """Chooses what leaves; for one process to tell others, and for a training that may be resumed.

        Raises:
            ConfigError: A pattern of excluded layers fits none.
            StageError: Nothing can be removed.
        """
        flow = self._traced(unfolded_shuffles(program))
        return make_plan(flow, self.options, self.measures, progress=progress)

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Prunes; see :class:`PruneOptions`.

        Raises:
            ConfigError: A pattern of excluded layers fits none.
            StageError: Nothing can be removed, or the check failed: then nothing is changed.
        """
        work = unfolded_shuffles(program)
        flow = self._traced(work)
        plan = self.plan
        if plan is None:
            plan = make_plan(flow, self.options, self.measures, progress=context.progress)
        groups = find_groups(flow)
        units = tuple(unit for group in groups for unit in group.units if unit.root in set(plan.units))
        error = None
        with context.progress.task("pruning", 2) as bar:
            if units:
                narrow = cut_out(work, plan.units)
                bar.advance()
                error = check_exact(work, narrow, units, seed=self.options.seed)
            pruned = without(work, plan.units, plan.blocks)
            bar.advance()
        return PassResult(program=pruned.recorded(self._record(program, pruned, flow, plan, error)))

    def _traced(self, work: Program) -> Flow:
        flow = trace(work, TABLE)
        exclude(flow, self.options.exclude)
        return flow

    def _record(self, program: Program, pruned: Program, flow: Flow, plan: Plan, error: float | None) -> Record:
        options, arithmetic = self.options, Arithmetic(flow)
        left = arithmetic.left(plan.units, plan.blocks) / arithmetic.total
        parts: list[str] = []
        skipped: list[Skipped] = []
        details: dict[str, Any] = {
            "asked": to_dict({"keep": options.keep, "latency": options.latency}),
            "remove": options.removes,
            "macs_left": left,
            "macs_before": arithmetic.total,
            "parameters_before": program.parameter_count,
            "parameters_after": pruned.parameter_count,
        }
        if options.removes != "blocks":
            widths = _widths(flow, plan)
            narrowed = sum(item["after"] != item["before"] for item in widths)
            parts.append(f"{narrowed} of {len(widths)} widths narrowed")
            details |= {"oracle": error, "widths": widths}
            skipped += [
                Skipped(what="channels", where=item.layer, why=f"{item.reason.why} ({item.reason.where})")
                for item in find_kept(flow)
            ]
        if options.removes != "channels":
            parts.append(f"{len(plan.blocks)} residual blocks removed")
            details["removed"] = [list(block.layers) for block in plan.blocks]
        parts.append(f"{left:.1%} of the MACs left")
        reached, what = left, "MACs"
        if plan.trials:
            reached, what = plan.trials[-1].measured, "time"
            parts.append(f"{reached:.1%} of the time")
            details["trials"] = to_dict(plan.trials)
        wanted = options.keep if options.latency is None else options.latency
        if wanted is not None and reached > wanted * (1 + _CLOSE):
            why = f"asked for {wanted:.0%} of the {what}, {reached:.1%} is the least that can be reached"
            skipped.append(Skipped(what="pruning", where="the whole network", why=why))
        return Record(
            stage=_STAGE,
            summary=f"{', '.join(parts)} (asked {options.asked})",
            changed=len(plan.units) + len(plan.blocks),
            skipped=tuple(skipped),
            details=details,
        )


def _widths(flow: Flow, plan: Plan) -> list[dict[str, Any]]:
    gone = set(plan.units)
    return [
        {
            "layers": list(group.layers),
            "before": group.size,
            "after": group.size - group.width * sum(unit.root in gone for unit in group.units),
        }
        for group in find_groups(flow)
    ]


def multiply_accumulates(program: Program) -> float:
    """Returns the multiply-accumulates of one image: of convolutions, linear layers, attention and recurrent layers."""
    return Arithmetic(trace(program, TABLE)).total
