"""Measures on images that no factor was fitted on what int8 costs with and without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import CONV, CONV_TRANSPOSE, LINEAR, is_call
from edgekit.passes.equalize.factors import Factors
from edgekit.passes.equalize.grids import rounded_weight
from edgekit.passes.equalize.groups import Group, along, input_of, multiply_columns
from edgekit.passes.samples import Batch
from edgekit.passes.stream import Streamer
from edgekit.progress import Progress
from edgekit.targets import QuantizeRules

__all__ = ["MARGIN_DB", "Trial", "Verdict", "judge"]

MARGIN_DB = 0.2
"""What a group must gain to be kept, over all images and in the median one. A choice: groups that pay gained half a dB
and more on the networks that were looked at; a few clipped values move the sum over 16 images, but not the median."""

_LEAST_NOISE = 1e-20


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
    """Squared signal and noise at the outputs of a group's layers, without and with its factors, image by image."""

    signal: dict[fx.Node, list[torch.Tensor]] = field(default_factory=dict)
    before: dict[fx.Node, list[torch.Tensor]] = field(default_factory=dict)
    after: dict[fx.Node, list[torch.Tensor]] = field(default_factory=dict)

    def add(self, layer: fx.Node, exact: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        """Adds one batch of a layer's outputs, (images, ...), float32; ``before`` and ``after`` are written over."""
        for table, value in ((self.signal, exact), (self.before, before.sub_(exact)), (self.after, after.sub_(exact))):
            # In the tensors' own float32, without copies: far more exact than decibels are read.
            lengths = torch.linalg.vector_norm(value, dim=list(range(1, value.ndim)))
            table.setdefault(layer, []).append(lengths.double().square())

    @property
    def measured(self) -> bool:
        """Whether there was any image."""
        return bool(self.signal)

    @property
    def before_db(self) -> float:
        """SQNR without the factors over all images, in dB; noise is averaged over the layers that share the tensor."""
        return _db(self._relative(self.before).sum())

    @property
    def after_db(self) -> float:
        """SQNR with the factors over all images, in dB."""
        return _db(self._relative(self.after).sum())

    @property
    def gained_db(self) -> float:
        """By how much the noise fell over all images."""
        return self.after_db - self.before_db

    @property
    def typical_db(self) -> float:
        """By how much the noise fell in the median image, whatever a few clipped values do to the sum."""
        before, after = (self._relative(table).clamp_min(_LEAST_NOISE) for table in (self.before, self.after))
        return float((10 * torch.log10(before / after)).median())

    def _relative(self, noise: Mapping[fx.Node, list[torch.Tensor]]) -> torch.Tensor:
        """Noise of each image over the signal of all, averaged over the layers."""
        parts = [torch.cat(noise[layer]) / torch.cat(signal).sum() for layer, signal in self.signal.items()]
        return torch.stack(parts).mean(0)


def _db(noise: torch.Tensor) -> float:
    return float(-10 * torch.log10(noise.clamp_min(_LEAST_NOISE)))


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
        members = {
            node: index for index, trial in enumerate(trials) for node in (trial.group.producer, *trial.group.between)
        }
        super().__init__(graph, last=[node for node in graph.graph.nodes if node in reading][-1], spared=members)
        self._trials, self._verdicts, self._reading = trials, verdicts, reading
        self._members = members
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
        without = self._call(layer, before.rounded(noisy), rounded)
        smooth = self._call(layer, after.rounded(noisy / along(trial.factors.values, noisy, layer)), scaled)
        verdict.add(layer, exact, without, smooth)

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
