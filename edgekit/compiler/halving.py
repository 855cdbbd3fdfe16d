"""fp16 for a program's float part, with fp32 for the nodes that it hurts: measured, converted, checked as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import fx

from edgekit.compiler.golden import golden_outputs, golden_rows
from edgekit.compiler.records import HalfReport, KeptFloat
from edgekit.errors import StageError
from edgekit.passes import PassContext, run_passes
from edgekit.passes.aten import ATTENTION, COMPUTE, MATMUL, RECURRENT, is_call, operator_name, origin_name
from edgekit.passes.half import NodeError, ToHalf, measure_half
from edgekit.passes.samples import Batch
from edgekit.program import Program
from edgekit.runtime.golden import rel_l2

__all__ = ["Halved", "halve"]

Array = np.ndarray[Any, Any]
# While the whole program is off by too much: 1, 2, 4 and 8 nodes more. Beyond that no single layer is to blame.
_ROUNDS = 4
# Below this an error is rounding as such, of two inputs and a result, each by at most 2^-11: fp32 would gain little.
_ROUNDING = 3 * 2.0**-11
_HINT = "compile for fp32 or int8 instead (--precision)"


@dataclass(frozen=True, kw_only=True)
class Halved:
    """The outcome.

    Attributes:
        program: In half precision, but for what is kept.
        answers: Its outputs on the golden inputs.
        report: What was kept, and how far the answers are from fp32's.
    """

    program: Program
    answers: Mapping[str, Array]
    report: HalfReport


def halve(
    program: Program,
    *,
    limit: float,
    node_limit: float,
    golden: Mapping[str, Array],
    answers: Mapping[str, Array],
    images: Iterable[Batch],
    context: PassContext,
    refused: Mapping[str, str],
) -> Halved:
    """Writes a program's float part in fp16, and keeps in fp32 the nodes that this hurts.

    Kept is what overflows and what errs beyond its limit, each node measured by itself. Then the program is run as a
    whole. While it is further off than its own limit, the worst of the other nodes are kept too, in at most four
    rounds; where these do not help, they are half again, and the report says how far off the answers are.

    Args:
        program: Folded, and quantized where it is int8.
        limit: Largest relative L2 distance of an output from fp32's.
        node_limit: Largest relative L2 error of one node's result.
        golden: Golden inputs.
        answers: The program's outputs on them, in fp32.
        images: More inputs that nodes are measured on, one image each.
        context: For passes, and where progress is shown.
        refused: Node names that stay fp32 in any case, with the reason.

    Raises:
        UserError: A weight is beyond what float16 holds, though no node was seen to read it.
        StageError: Even so an output is no number, every layer would stay fp32, or torch cannot compute it.
    """
    # One by one: small tensors stay in the cache, and little memory is held.
    batches = [*golden_rows(program, golden), *images]
    with context.progress.task("where half precision hurts", len(batches) + 1 + _ROUNDS) as bar:
        found = measure_half(program, batches, limit=node_limit, bar=bar)
        kept = {item.node: _kept(item) for item in found if item.cause}
        kept |= {name: _refused(program, name, why) for name, why in refused.items()}
        first = last = _tried(program, kept, golden, answers, limit, context)
        bar.advance()
        left = _suspects(found, last)
        while not last.report.distance <= limit and left and last.report.rounds < _ROUNDS:
            size = 2**last.report.rounds
            more = {item.node: _kept(replace(item, cause="error"), cause="program") for item in left[:size]}
            left = left[size:]
            tried = _tried(program, {**last.nodes, **more}, golden, answers, limit, context)
            last = replace(tried, report=replace(tried.report, rounds=last.report.rounds + 1))
            bar.advance()
    best = last if last.report.distance <= limit or not math.isfinite(first.report.distance) else first
    _check(best, answers)
    return Halved(
        program=best.program,
        answers=best.answers,
        report=replace(best.report, rounds=last.report.rounds, kept=tuple(_in_order(program, best.nodes))),
    )


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """One try: what was kept, and what came of it."""

    program: Program
    nodes: Mapping[str, KeptFloat]
    answers: Mapping[str, Array]
    report: HalfReport


def _tried(
    program: Program,
    kept: Mapping[str, KeptFloat],
    golden: Mapping[str, Array],
    answers: Mapping[str, Array],
    limit: float,
    context: PassContext,
) -> _Tried:
    """Converts and runs; a node for which torch has no float16 kernel is kept, and all is done again."""
    nodes = dict(kept)
    while True:
        half = run_passes(program, [ToHalf(kept={name: item.why for name, item in nodes.items()})], context)
        try:
            actual = golden_outputs(half, golden)
        except RuntimeError as error:
            name = _failing(half, golden_rows(half, golden))
            if name is None or name in nodes:
                raise StageError(
                    f"'{program.name}': torch cannot compute it in float16 here, so no engine can be checked: {error}",
                    hint=_HINT,
                ) from error
            nodes[name] = _refused(program, name, f"refused: torch cannot compute it in float16 here: {_line(error)}")
            continue
        distance = max(rel_l2(answers[name], actual[name]) for name in answers)
        report = HalfReport(distance=distance, limit=limit, rounds=0, kept=())
        return _Tried(program=half, nodes=nodes, answers=actual, report=report)


def _check(tried: _Tried, answers: Mapping[str, Array]) -> None:
    program = tried.program
    for name, values in tried.answers.items():
        if not np.isfinite(values).all() and np.isfinite(answers[name]).all():
            raise StageError(
                f"'{program.name}': in float16 its output '{name}' is no number on the golden inputs: a value exceeds "
                "float16's largest, 65504",
                hint=_HINT,
            )
    layers = [node for node in program.graph.graph.nodes if is_call(node, _LAYERS)]
    if layers and all(node.name in tried.nodes for node in layers):
        raise StageError(
            f"'{program.name}': in float16 every layer overflows or errs too much, so nothing would be fp16",
            hint=_HINT,
        )


_LAYERS = frozenset({*COMPUTE, *MATMUL, *ATTENTION, *RECURRENT})


def _suspects(found: Iterable[NodeError], tried: _Tried) -> list[NodeError]:
    """The nodes that may still be to blame, worst first."""
    others = [item for item in found if item.node not in tried.nodes and not item.moves and item.error > _ROUNDING]
    return sorted(others, key=lambda item: -item.error)


def _kept(item: NodeError, *, cause: Literal["program"] | None = None) -> KeptFloat:
    why = (
        item.why if cause is None else f"the program as a whole was off by too much, and of its nodes this: {item.why}"
    )
    found = item.cause if cause is None else cause
    assert found
    return KeptFloat(
        node=item.node,
        layer=item.layer,
        operator=item.operator,
        cause=found,
        peak=item.peak,
        error=item.error if math.isfinite(item.error) else None,
        why=why,
    )


def _refused(program: Program, name: str, why: str) -> KeptFloat:
    node = next(node for node in program.graph.graph.nodes if node.name == name)
    return KeptFloat(
        node=name,
        layer=origin_name(node),
        operator=operator_name(node),
        cause="refused",
        peak=None,
        error=None,
        why=why,
    )


def _in_order(program: Program, kept: Mapping[str, KeptFloat]) -> list[KeptFloat]:
    return [kept[node.name] for node in program.graph.graph.nodes if node.name in kept]


def _failing(program: Program, batches: Iterable[Batch]) -> str | None:
    """The first node that torch cannot compute."""
    failed: list[str] = []

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            try:
                return super().run_node(node)
            except RuntimeError:
                failed.append(node.name)
                raise

    for batch in batches:
        try:
            with torch.no_grad():
                Watcher(program.graph).run(*batch)
        except RuntimeError:
            return failed[0]
    return None


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
