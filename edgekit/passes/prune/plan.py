"""What leaves a program: chosen once, so that a training that is resumed, and every process of several, agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from edgekit.config import nearest
from edgekit.errors import ConfigError, InternalError, StageError
from edgekit.passes.prune.blocks import Block, BlockPrices, find_blocks, without_blocks
from edgekit.passes.prune.choose import Importance, choose_blocks, choose_global, choose_uniform, never_empty
from edgekit.passes.prune.distance import Batches, by_answers, distance_on
from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.importance import Loss, by_batch_norm, by_magnitude, by_taylor
from edgekit.passes.prune.labels import Frozen
from edgekit.passes.prune.latency import Path, Trial, learn_times, search
from edgekit.passes.prune.options import PruneOptions
from edgekit.passes.prune.shuffle import folded_shuffles
from edgekit.passes.prune.surgery import cut_out
from edgekit.passes.prune.timing import Clock
from edgekit.passes.prune.units import Group, Unit, find_groups, find_kept
from edgekit.program import Program
from edgekit.progress import Progress

__all__ = ["Measures", "Plan", "exclude", "make_plan", "own_class", "without"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What leaves.

    Attributes:
        units: Representatives of the units.
        blocks: The residual blocks.
        trials: What was timed on the way, with ``latency``; what was chosen comes last.
    """

    units: tuple[int, ...] = ()
    blocks: tuple[Block, ...] = ()
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What choices are measured by.

    Attributes:
        batches: Gives float inputs of the program; None where there are no images.
        loss: For ``taylor``: outputs and the batch's number to a scalar. None takes the cross entropy of the first
            output against its own strongest class, which needs no labels.
        clock: Of the target; None where nothing can be timed.
    """

    batches: Batches | None = None
    loss: Loss | None = None
    clock: Clock | None = None


def make_plan(flow: Flow, options: PruneOptions, measures: Measures, *, progress: Progress) -> Plan:
    """Chooses what leaves.

    Args:
        flow: The labels of the program, what is excluded frozen.
        options: What is asked for.
        measures: What the options need.
        progress: Where progress is shown.

    Raises:
        StageError: Nothing can be removed.
    """
    groups = () if options.removes == "blocks" else find_groups(flow)
    blocks = () if options.removes == "channels" else _blocks(flow, options.exclude)
    if not groups and not blocks:
        raise _nothing(flow, options)
    if options.latency is not None:
        plan = _by_clock(flow, groups, blocks, options, measures, progress)
    elif options.removes == "blocks":
        with progress.task("choosing blocks", None) as bar:
            prices = BlockPrices(flow.program, blocks, distance_on(flow.program, _images(measures)), bar)
            plan = Plan(blocks=choose_blocks(flow, prices, keep=_keep(options)))
    else:
        importance = _importance(flow, groups, options, measures)
        choose = choose_global if options.allocation == "global" else choose_uniform
        units = choose(flow, groups, importance, keep=_keep(options), align=options.align)
        plan = Plan(units=tuple(unit.root for unit in units))
    if not plan.units and not plan.blocks:
        raise _nothing(flow, options)
    return plan


def without(program: Program, units: Sequence[int], removed: Sequence[Block]) -> Program:
    """Returns a copy of a program, its shuffles unfolded, without units and blocks, and with what is a shuffle folded.

    Args:
        program: The one that was traced.
        units: Representatives of the units.
        removed: The blocks.
    """
    narrow = cut_out(program, units) if units else program
    return folded_shuffles(without_blocks(narrow, removed) if removed else narrow)


def exclude(flow: Flow, patterns: Sequence[str]) -> None:
    """Freezes the layers that shall stay.

    Raises:
        ConfigError: A pattern fits none.
    """
    layers = {name.removesuffix(".weight"): name for (name, _), roles in flow.roles.items() if "out" in roles}
    for pattern in patterns:
        matched = [name for layer, name in layers.items() if fnmatchcase(layer, pattern)]
        if not matched:
            raise ConfigError(f"prune: no layer is called '{pattern}'", hint=nearest(pattern, list(layers)))
        for name in matched:
            for dim, axis in enumerate(flow.parameters[name]):
                if axis is not None and "out" in flow.roles.get((name, dim), ()):
                    flow.labels.freeze(axis.labels, Frozen(where=name, why=f"it was excluded by '{pattern}'"))


def own_class(outputs: tuple[torch.Tensor, ...], number: int) -> torch.Tensor:
    """Returns the cross entropy of the first output (N, classes, ...) against its own strongest class."""
    scores = outputs[0]
    return torch.nn.functional.cross_entropy(scores, scores.detach().argmax(dim=1))


def _by_clock(
    flow: Flow,
    groups: Sequence[Group],
    blocks: Sequence[Block],
    options: PruneOptions,
    measures: Measures,
    progress: Progress,
) -> Plan:
    clock, asked = measures.clock, options.latency
    if clock is None or asked is None:
        raise InternalError("pruning by the clock was asked for without one")
    images = _images(measures)

    def cut(units: Sequence[Unit], removed: Sequence[Block] = ()) -> Program:
        return without(flow.program, [unit.root for unit in never_empty(flow, units)], removed)

    with progress.task("timing layers", None) as bar:
        model = learn_times(flow, groups, cut, clock, align=options.align, seed=options.seed, bar=bar)
    with progress.task("ranking what can leave", None) as bar:
        importance = by_answers(flow, groups, images, seed=options.seed) if groups else {}
        prices = BlockPrices(flow.program, blocks, distance_on(flow.program, images), bar) if blocks else None
        path = Path(flow, groups, importance, prices, model, align=options.align)
        path.upto(asked)
    with progress.task("timing what is left", None) as bar:
        steps, trials = search(path, lambda count: clock.ratio(cut(*path.gone(count))), asked, bar=bar)
    units, gone = path.gone(steps)
    return Plan(units=tuple(unit.root for unit in never_empty(flow, units)), blocks=gone, trials=trials)


def _importance(flow: Flow, groups: Sequence[Group], options: PruneOptions, measures: Measures) -> Importance:
    if options.importance == "taylor":
        return by_taylor(flow, groups, _images(measures)(), own_class if measures.loss is None else measures.loss)
    return (by_batch_norm if options.importance == "batchnorm" else by_magnitude)(flow, groups)


def _blocks(flow: Flow, patterns: Sequence[str]) -> tuple[Block, ...]:
    return tuple(
        block
        for block in find_blocks(flow)
        if not any(fnmatchcase(layer, pattern) for layer in block.layers for pattern in patterns)
    )


def _images(measures: Measures) -> Batches:
    if measures.batches is None:
        raise InternalError("what is measured on images was asked for without any")
    return measures.batches


def _keep(options: PruneOptions) -> float:
    if options.keep is None:
        raise InternalError("a share of the arithmetic was asked for and is not there")
    return options.keep


def _nothing(flow: Flow, options: PruneOptions) -> StageError:
    what = {"channels": "channels", "blocks": "residual blocks", "both": "channels or residual blocks"}
    reasons = [f"{item.layer}: {item.reason.why}" for item in find_kept(flow)[:5]]
    unknown = [f"no rule for {operator} (first at {place})" for operator, place in list(flow.unknown.items())[:3]]
    lines = "\n  ".join([*reasons, *unknown])
    return StageError(
        f"pruning found no {what[options.removes]} of '{flow.program.name}' that could be removed"
        + (f"\n  {lines}" if lines else ""),
        hint="compile without --prune, or leave out --prune-exclude",
    )
