"""Structured pruning of a program: choose, cut, and check that what is left computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from edgekit.config import nearest
from edgekit.errors import ConfigError, InternalError, StageError
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.prune.blocks import choose_blocks, find_blocks, macs_without, without_blocks
from edgekit.passes.prune.choose import Arithmetic, choose_global, choose_uniform
from edgekit.passes.prune.flow import Flow, trace
from edgekit.passes.prune.importance import Loss, by_batch_norm, by_magnitude, by_taylor
from edgekit.passes.prune.labels import Frozen
from edgekit.passes.prune.options import PruneOptions
from edgekit.passes.prune.oracle import check_exact
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.shuffle import folded_shuffles, unfolded_shuffles
from edgekit.passes.prune.surgery import cut_out
from edgekit.passes.prune.units import Group, Unit, find_groups, find_kept
from edgekit.program import Program, Record, Skipped

__all__ = ["Prune", "distance_on", "multiply_accumulates"]

Batches = Callable[[], Iterable[tuple[torch.Tensor, ...]]]
_STAGE = "prune"
_CLOSE = 0.05


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Removes channels or residual blocks.

    Attributes:
        options: What to remove, and how much.
        batches: Gives float inputs of the program, batch by batch, anew at each call: for ``taylor`` and for blocks.
        loss: For ``taylor``: outputs and the batch's number to a scalar. None takes the cross entropy of the first
            output against its own strongest class, which needs no labels.
    """

    options: PruneOptions
    batches: Batches | None = None
    loss: Loss | None = None

    @property
    def name(self) -> str:
        """The name in histories."""
        return _STAGE

    def check(self, program: Program) -> None:
        """Refuses what needs images and has none.

        Raises:
            ConfigError: There are no images to measure on.
        """
        needs = "removing blocks" if self.options.remove == "blocks" else "importance 'taylor'"
        measured = self.options.remove == "blocks" or self.options.importance == "taylor"
        if measured and self.batches is None:
            raise ConfigError(f"prune: {needs} is measured on images, and there are none", hint="give --data")

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Prunes; see :class:`PruneOptions`.

        Raises:
            ConfigError: A pattern of excluded layers fits none.
            StageError: Nothing can be removed, or the check failed: then nothing is changed.
        """
        if self.options.remove == "blocks":
            return PassResult(program=self._blocks(program, context))
        return PassResult(program=self._channels(program, context))

    def _channels(self, program: Program, context: PassContext) -> Program:
        work = unfolded_shuffles(program)
        with context.progress.task("pruning", 4) as bar:
            flow = trace(work, TABLE)
            _exclude(flow, self.options.exclude)
            groups = find_groups(flow)
            bar.advance()
            units = self._chosen(flow, groups)
            if not units:
                raise _nothing(program, flow, "channels")
            bar.advance()
            pruned = cut_out(work, [unit.root for unit in units])
            bar.advance()
            error = check_exact(work, pruned, units, seed=self.options.seed)
            bar.advance()
        arithmetic = Arithmetic(flow)
        left = arithmetic.left([unit.root for unit in units]) / arithmetic.total
        gone = {unit.root for unit in units}
        widths = [
            {
                "layers": list(group.layers),
                "before": group.size,
                "after": group.size - group.width * sum(unit.root in gone for unit in group.units),
            }
            for group in groups
        ]
        narrowed = sum(item["after"] != item["before"] for item in widths)
        details = {
            **self._facts(program, pruned, arithmetic.total, left),
            "oracle": error,
            "widths": widths,
        }
        skipped = [
            Skipped(what="channels", where=item.layer, why=f"{item.reason.why} ({item.reason.where})")
            for item in find_kept(flow)
        ]
        summary = (
            f"{narrowed} of {len(groups)} widths narrowed, {left:.1%} of the MACs left (asked {self.options.keep:.0%})"
        )
        record = Record(
            stage=_STAGE,
            summary=summary,
            changed=len(units),
            skipped=(*skipped, *self._missed(left)),
            details=details,
        )
        return folded_shuffles(pruned).recorded(record)

    def _chosen(self, flow: Flow, groups: Sequence[Group]) -> tuple[Unit, ...]:
        options = self.options
        if options.importance == "taylor":
            if self.batches is None:
                raise InternalError("taylor importance was asked for without images")
            loss = own_class if self.loss is None else self.loss
            importance = by_taylor(flow, groups, self.batches(), loss)
        else:
            importance = (by_magnitude if options.importance == "magnitude" else by_batch_norm)(flow, groups)
        choose = choose_uniform if options.allocation == "uniform" else choose_global
        return choose(flow, groups, importance, keep=options.keep, align=options.align)

    def _blocks(self, program: Program, context: PassContext) -> Program:
        if self.batches is None:
            raise InternalError("blocks were to be removed without images")
        flow = trace(program, TABLE)
        blocks = tuple(
            block
            for block in find_blocks(flow)
            if not any(fnmatchcase(layer, pattern) for layer in block.layers for pattern in self.options.exclude)
        )
        if not blocks:
            raise _nothing(program, flow, "residual blocks")
        distance = distance_on(program, self.batches)
        with context.progress.task("choosing blocks", None) as bar:
            chosen = choose_blocks(flow, blocks, distance, keep=self.options.keep, bar=bar)
        total = macs_without(flow, ())
        left = macs_without(flow, chosen) / total
        pruned = without_blocks(program, chosen)
        details = {
            **self._facts(program, pruned, total, left),
            "removed": [list(block.layers) for block in chosen],
            "distance": distance(pruned),
        }
        record = Record(
            stage=_STAGE,
            summary=f"{len(chosen)} of {len(blocks)} residual blocks removed, {left:.1%} of the MACs left "
            f"(asked {self.options.keep:.0%})",
            changed=len(chosen),
            skipped=self._missed(left),
            details=details,
        )
        return pruned.recorded(record)

    def _facts(self, program: Program, pruned: Program, macs: float, left: float) -> dict[str, Any]:
        return {
            "asked": self.options.keep,
            "remove": self.options.remove,
            "macs_left": left,
            "macs_before": macs,
            "parameters_before": program.parameter_count,
            "parameters_after": pruned.parameter_count,
        }

    def _missed(self, left: float) -> tuple[Skipped, ...]:
        if left <= self.options.keep * (1 + _CLOSE):
            return ()
        why = f"asked for {self.options.keep:.0%} of the MACs, {left:.1%} is the least that can be reached"
        return (Skipped(what="pruning", where="the whole network", why=why),)


def distance_on(program: Program, batches: Batches) -> Callable[[Program], float]:
    """Returns how far a program's outputs are from ``program``'s on images: squared, relative to their variance."""
    whole = [program.run(*batch) for batch in batches()]

    def distance(other: Program) -> float:
        gap = scale = 0.0
        for batch, expected in zip(batches(), whole, strict=True):
            for mine, its in zip(other.run(*batch), expected, strict=True):
                gap += float((mine - its).double().square().sum())
                scale += float((its - its.mean()).double().square().sum())
        return gap / max(scale, 1e-30)

    return distance


def own_class(outputs: tuple[torch.Tensor, ...], number: int) -> torch.Tensor:
    """Returns the cross entropy of the first output (N, classes, ...) against its own strongest class."""
    scores = outputs[0]
    return torch.nn.functional.cross_entropy(scores, scores.detach().argmax(dim=1))


def _exclude(flow: Flow, patterns: Sequence[str]) -> None:
    layers = {name.removesuffix(".weight"): name for (name, _), roles in flow.roles.items() if "out" in roles}
    for pattern in patterns:
        matched = [name for layer, name in layers.items() if fnmatchcase(layer, pattern)]
        if not matched:
            raise ConfigError(f"prune: no layer is called '{pattern}'", hint=nearest(pattern, list(layers)))
        for name in matched:
            for dim, axis in enumerate(flow.parameters[name]):
                if axis is not None and "out" in flow.roles.get((name, dim), ()):
                    flow.labels.freeze(axis.labels, Frozen(where=name, why=f"it was excluded by '{pattern}'"))


def _nothing(program: Program, flow: Flow, what: str) -> StageError:
    reasons = [f"{item.layer}: {item.reason.why}" for item in find_kept(flow)[:5]]
    unknown = [f"no rule for {operator} (first at {place})" for operator, place in list(flow.unknown.items())[:3]]
    lines = "\n  ".join([*reasons, *unknown])
    return StageError(
        f"pruning found no {what} of '{program.name}' that could be removed" + (f"\n  {lines}" if lines else ""),
        hint="compile without --prune, or leave out --prune-exclude",
    )


def multiply_accumulates(program: Program) -> float:
    """Returns the multiply-accumulates of one image: of convolutions, linear layers, attention and recurrent layers."""
    return Arithmetic(trace(program, TABLE)).total
