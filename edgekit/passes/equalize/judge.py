"""Measures on images that no factor was fitted on what int8 costs with and without it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import CONV, CONV_TRANSPOSE, LINEAR, is_call
from edgekit.passes.equalize.factors import Factors
from edgekit.passes.equalize.grids import on_grid, rounded_weight
from edgekit.passes.equalize.groups import Group, along, input_of, multiply_columns
from edgekit.passes.equalize.statistics import Streamer
from edgekit.passes.samples import Batch
from edgekit.progress import Progress
from edgekit.targets import QuantizeRules

__all__ = ["MARGIN_DB", "Trial", "Verdict", "judge"]

MARGIN_DB = 0.2
"""What a group must gain to be kept; on 16 images the gain of factors that do nothing stays below it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A group with the factors that are tried on it.

    Attributes:
        weights: Of the layers, and of the producer where it has one, as they are without this group's factors.
        rows: What the layers' rows are already divided by, for those that are producers of another trial.
    """

    group: Group
    factors: Factors
    weights: Mapping[fx.Node, torch.Tensor]
    rows: Mapping[fx.Node, torch.Tensor]


@dataclass(kw_only=True)
class Verdict:
    """Signal-to-noise at the outputs of a group's layers, without and with its factors.

    Relative noise is averaged over the layers that share the tensor.
    """

    signal: dict[fx.Node, float] = field(default_factory=dict)
    noise_before: dict[fx.Node, float] = field(default_factory=dict)
    noise_after: dict[fx.Node, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there was any image."""
        return bool(self.signal)

    @property
    def before_db(self) -> float:
        """SQNR without the factors, in dB."""
        return self._db(self.noise_before)

    @property
    def after_db(self) -> float:
        """SQNR with the factors, in dB."""
        return self._db(self.noise_after)

    @property
    def gained_db(self) -> float:
        """By how much the noise fell; 0 where nothing was measured."""
        return self.after_db - self.before_db if self.signal else 0.0

    def _db(self, noise: Mapping[fx.Node, float]) -> float:
        parts = [noise[layer] / signal for layer, signal in self.signal.items() if signal > 0]
        mean = sum(parts) / len(parts) if parts else 0.0
        return -10 * math.log10(max(mean, 1e-20))


def judge(
    graph: fx.GraphModule,
    trials: Sequence[Trial],
    batches: Iterator[Batch],
    *,
    limit: int,
    rules: QuantizeRules,
    progress: Progress,
) -> list[Verdict]:
    """Streams images once and returns one verdict a trial.

    The producer's weight (where it has one), the tensor and the layers' weights are rounded; the producer's input is
    the float network's.

    Args:
        graph: The float graph, as it is before any factor.
        trials: What to try.
        batches: Images that nothing was fitted on.
        limit: How many they are at most.
        rules: The target's integers.
        progress: Where progress is shown.
    """
    verdicts = [Verdict() for _ in trials]
    watcher = _Judge(graph, trials, verdicts, rules)
    with progress.task("judging channel factors", limit) as bar:
        for batch in batches:
            watcher.stream(batch)
            bar.advance(len(batch[0]))
    return verdicts


class _Judge(Streamer):
    def __init__(
        self, graph: fx.GraphModule, trials: Sequence[Trial], verdicts: Sequence[Verdict], rules: QuantizeRules
    ) -> None:
        reading = {layer: index for index, trial in enumerate(trials) for layer in trial.group.layers}
        super().__init__(graph, [node for node in graph.graph.nodes if node in reading][-1])
        self._trials, self._verdicts, self._reading = trials, verdicts, reading
        self._members = {
            node: index for index, trial in enumerate(trials) for node in (trial.group.producer, *trial.group.between)
        }
        # The values that a group's nodes give when its producer's weight is rounded.
        self._noisy: dict[fx.Node, torch.Tensor] = {}
        # A producer that reads another trial's tensor is rounded as that trial leaves its columns; its input is not
        # scaled here, so they are scaled back afterwards.
        columns = {layer: trial.factors.values for trial in trials for layer in trial.group.layers}
        self._rounded: dict[fx.Node, torch.Tensor] = {}
        for trial in trials:
            node = trial.group.producer
            if node not in trial.weights:
                continue
            factors = columns.get(node)
            if factors is None:
                self._rounded[node] = rounded_weight(node, trial.weights[node], rules)
            else:
                scaled = rounded_weight(node, multiply_columns(node, trial.weights[node], factors), rules)
                self._rounded[node] = multiply_columns(node, scaled, 1 / factors)
        self._layers: dict[fx.Node, tuple[torch.Tensor, torch.Tensor]] = {}
        for trial in trials:
            for layer in trial.group.layers:
                weight = trial.weights[layer]
                scaled = multiply_columns(layer, weight, trial.factors.values)
                self._layers[layer] = rounded_weight(layer, weight, rules), rounded_weight(layer, scaled, rules)

    def saw(self, node: fx.Node, result: Any) -> None:
        if node in self._reading:
            self._measure(node, result)
        if node in self._members:
            self._noisy[node] = self._with_noise(node, result)

    def _with_noise(self, node: fx.Node, result: torch.Tensor) -> torch.Tensor:
        group = self._trials[self._members[node]].group
        if node is group.producer:
            if node not in self._rounded:
                return result
            return self._call(node, None, self._rounded[node], bias=True)
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        source = input_of(node)
        answer: torch.Tensor = node.target(self._noisy[source], *arguments[1:], **keywords)  # type: ignore[operator]
        return answer

    def _measure(self, layer: fx.Node, result: torch.Tensor) -> None:
        index = self._reading[layer]
        trial, verdict = self._trials[index], self._verdicts[index]
        source = input_of(layer)
        before, after = trial.factors.grids[source]
        rounded, scaled = self._layers[layer]
        noisy = self._noisy[source]
        arguments, keywords = self.fetch_args_kwargs_from_env(layer)
        bias = arguments[2] if len(arguments) > 2 else keywords.get("bias")
        exact = result if bias is None else result - along(bias, result, layer)
        if layer in trial.rows:
            exact = exact / along(trial.rows[layer], exact, layer)
        without = self._call(layer, on_grid(noisy, before), rounded)
        smooth = self._call(layer, on_grid(noisy / along(trial.factors.values, noisy, layer), after), scaled)
        for table, value in (
            (verdict.signal, exact),
            (verdict.noise_before, without - exact),
            (verdict.noise_after, smooth - exact),
        ):
            table[layer] = table.get(layer, 0.0) + float(value.double().square().sum())

    def _call(
        self, node: fx.Node, value: torch.Tensor | None, weight: torch.Tensor, *, bias: bool = False
    ) -> torch.Tensor:
        """Runs a layer on another input (its own where None) and with another weight."""
        assert is_call(node, {*CONV, *CONV_TRANSPOSE, *LINEAR})
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        call = [*arguments]
        call[0], call[1] = call[0] if value is None else value, weight
        if not bias:
            call[2:3] = [None] if len(call) > 2 else []
            keywords = {key: item for key, item in keywords.items() if key != "bias"}
        answer: torch.Tensor = node.target(*call, **keywords)  # type: ignore[operator]
        return answer
