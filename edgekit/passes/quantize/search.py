"""Range search: of several ranges for a tensor, the one with the least error at the outputs of what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.passes.quantize.grids import Grid
from edgekit.passes.quantize.policy import Plan, Site
from edgekit.passes.samples import CalibrationData
from edgekit.passes.stream import Streamer
from edgekit.progress import Progress

__all__ = ["Choices", "search"]

Choices = Mapping[Site, Mapping[str, Grid]]
"""Site to the grids to choose from, by the name of the way that found them; tied sites have equal ones."""


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """A consumer with its quantized weight: how it is run, and on which of its arguments the sites' values come in."""

    node: fx.Node
    index: int
    sites: tuple[Site, ...]


def search(
    graph: fx.GraphModule,
    plan: Plan,
    choices: Choices,
    weights: Mapping[fx.Node, torch.Tensor],
    data: CalibrationData,
    *,
    limit: int,
    progress: Progress,
) -> dict[Site, str]:
    """Measures, for every group of tied sites, which choice adds the least squared error to its consumers' outputs.

    Each consumer runs with its quantized weight on the float network's activations, of which one argument is quantized;
    the reference is the float output. All consumers' errors, each relative to the energy of its output, add up.

    Args:
        graph: The folded float graph.
        plan: The plan.
        choices: What to choose from.
        weights: Layer to its quantized weight, in float.
        data: Images.
        limit: At most so many are used.
        progress: Where progress is shown.

    Returns:
        Site to the name of the best choice; the first one wins ties.
    """
    leaders = {site: group[0] for group in plan.groups for site in group}
    readers: dict[fx.Node, list[_Reader]] = {}
    for edge in plan.edges:
        if len(choices[edge.sites[0]]) > 1:
            readers.setdefault(edge.consumer, []).append(
                _Reader(node=edge.consumer, index=edge.index, sites=edge.sites)
            )
    errors: dict[tuple[Site, str], float] = {}
    watcher = _Watcher(graph, readers, choices, weights, leaders, errors)
    with progress.task("searching ranges", min(limit, data.count)) as bar:
        for batch in data.fit(limit):
            watcher.stream(batch)
            bar.advance(len(batch[0]))
    best: dict[Site, str] = {}
    for site, leader in leaders.items():
        names = list(choices[leader])
        best[site] = min(names, key=lambda name: errors.get((leader, name), 0.0))
    return best


class _Watcher(Streamer):
    def __init__(
        self,
        graph: fx.GraphModule,
        readers: Mapping[fx.Node, list[_Reader]],
        choices: Choices,
        weights: Mapping[fx.Node, torch.Tensor],
        leaders: Mapping[Site, Site],
        errors: dict[tuple[Site, str], float],
    ) -> None:
        super().__init__(graph, spared=readers)
        self.readers, self.choices, self.weights = readers, choices, weights
        self.leaders, self.errors = leaders, errors

    def saw(self, node: fx.Node, result: Any) -> None:
        for reader in self.readers.get(node, ()):
            self._measure(reader, result)

    def _measure(self, reader: _Reader, reference: torch.Tensor) -> None:
        node = reader.node
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        call = list(arguments)
        if node in self.weights:
            call[1] = self.weights[node]
        value = call[reader.index]
        energy = float(reference.double().square().sum()) + 1e-30
        leader = self.leaders[reader.sites[0]]
        for name, grid in self.choices[leader].items():
            # Quantizing commutes with what only moves values, so the consumer's own argument is quantized.
            call[reader.index] = grid.rounded(value)
            error = node.target(*call, **keywords) - reference  # type: ignore[operator]
            place = (leader, name)
            self.errors[place] = self.errors.get(place, 0.0) + float(error.double().square().sum()) / energy
