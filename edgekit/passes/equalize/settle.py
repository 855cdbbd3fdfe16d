"""From groups to kept factors: ranges on the fitted images, a choice for each group, a verdict on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.passes.aten import COMPUTE, is_call, read_tensor
from edgekit.passes.equalize.factors import Factors, Halves, choose_factors
from edgekit.passes.equalize.groups import Group, channel_axis, divide_rows, input_of
from edgekit.passes.equalize.judge import MARGIN_DB, Trial, Verdict, judge
from edgekit.passes.equalize.statistics import Seen, observe_channels
from edgekit.passes.samples import CalibrationData
from edgekit.program import Skipped
from edgekit.progress import Progress
from edgekit.targets import QuantizeRules

__all__ = ["Outcome", "gains", "left", "settle"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a group.

    Attributes:
        factors: The best that were found; None where none were looked for.
        verdict: On held-out images; None where it did not come to that.
        why: Why the group is left as it was; None where its factors are kept.
    """

    group: Group
    factors: Factors | None = None
    verdict: Verdict | None = None
    why: str | None = None


def settle(
    graph: fx.GraphModule,
    groups: Sequence[Group],
    *,
    rules: QuantizeRules,
    corrections: Corrections,
    data: CalibrationData,
    progress: Progress,
) -> list[Outcome]:
    """Finds the factors of each group and judges them; changes nothing.

    Images are streamed once for the ranges, and once more where any group promises a gain. Groups are taken from the
    last to the first, because factors of a tensor change the rows of the weight that makes it, and with them what
    counts at the output of the group before; they change no other tensor's ranges, so one sweep settles a chain.

    Args:
        graph: The float graph.
        groups: In graph order; no layer is in two of them, no producer either.
        rules: The target's integers.
        corrections: How many images are fitted on, and how many judge.
        data: The calibration images.
        progress: Where progress is shown.
    """
    if not groups:
        return []
    sources = {input_of(layer): channel_axis(layer) for group in groups for layer in group.layers}
    seen = observe_channels(graph, sources, data.fit(corrections.samples), limit=corrections.samples, progress=progress)
    weights = {node: _weight(graph, node) for group in groups for node in (group.producer, *group.layers) if _has(node)}
    before = dict(weights)
    rows: dict[fx.Node, torch.Tensor] = {}
    outcomes: dict[int, Outcome] = {}
    trials: dict[int, Trial] = {}
    for index in reversed(range(len(groups))):
        group = groups[index]
        halves: dict[fx.Node, tuple[Seen, Seen]] = {}
        for layer in group.layers:
            found = seen[input_of(layer)].halves()
            if found is not None:
                halves[input_of(layer)] = found
        why = _why_unfit(halves)
        if why is not None:
            outcomes[index] = Outcome(group=group, why=why)
            continue
        factors = choose_factors(group, halves, weights, rules)
        if not factors.predicted_db >= MARGIN_DB:
            why = f"its channels are alike enough: {_db(factors.predicted_db)} dB to gain on the images fitted on"
            outcomes[index] = Outcome(group=group, factors=factors, why=why)
            continue
        own = {layer: weights[layer] for layer in group.layers}
        if _has(group.producer):
            own[group.producer] = before[group.producer]
            rows[group.producer] = factors.values
            weights[group.producer] = divide_rows(group.producer, weights[group.producer], factors.values)
        trials[index] = Trial(
            group=group, factors=factors, weights=own, rows={key: rows[key] for key in group.layers if key in rows}
        )
    if trials:
        verdicts = judge(
            graph,
            list(trials.values()),
            data.held_out(corrections.held_out),
            limit=corrections.held_out,
            rules=rules,
            progress=progress,
        )
        for (index, trial), verdict in zip(trials.items(), verdicts, strict=True):
            outcomes[index] = Outcome(group=trial.group, factors=trial.factors, verdict=verdict, why=_why_lost(verdict))
    return [outcomes[index] for index in range(len(groups))]


def gains(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns one plain line for each group that was judged on held-out images."""
    return [
        {
            "layer": item.group.title,
            "gain_db": round(item.verdict.gained_db, 2),
            "kept": item.why is None,
            "median_db": round(item.verdict.typical_db, 2),
            "sqnr_before_db": round(item.verdict.before_db, 2),
            "sqnr_after_db": round(item.verdict.after_db, 2),
            "predicted_db": round(item.factors.predicted_db, 2),
            "alpha": item.factors.alpha,
            "spread": round(float(item.factors.values.max() / item.factors.values.min()), 2),
        }
        for item in outcomes
        if item.verdict is not None and item.factors is not None and item.verdict.measured
    ]


def left(what: str, outcomes: Sequence[Outcome]) -> list[Skipped]:
    """Returns the groups that stay as they were, with the reason."""
    return [Skipped(what=what, where=item.group.title, why=item.why) for item in outcomes if item.why is not None]


def _why_unfit(halves: Halves) -> str | None:
    if not halves:
        return "there is no image to fit on"
    if not all(half.finite for pair in halves.values() for half in pair):
        return "its tensor holds NaN or infinity"
    return None


def _why_lost(verdict: Verdict) -> str | None:
    if not verdict.measured:
        return "there is no held-out image to judge it on: every fourth one is kept for that"
    gained, typical = verdict.gained_db, verdict.typical_db
    if gained >= MARGIN_DB and typical >= MARGIN_DB:
        return None
    return (
        f"on images that it was not fitted on it gained {_db(gained)} dB, {_db(typical)} in the median image, "
        f"where {MARGIN_DB} is asked for"
    )


def _db(value: float) -> str:
    return f"{value:.2f}"


def _has(node: fx.Node) -> bool:
    return is_call(node, COMPUTE)


def _weight(graph: fx.GraphModule, layer: fx.Node) -> torch.Tensor:
    attribute = layer.args[1]
    assert isinstance(attribute, fx.Node)
    return read_tensor(graph, attribute).detach()
