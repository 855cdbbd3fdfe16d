"""The quantization pass: plan, observe, choose grids, correct biases, insert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.calibration import Recipe
from edgekit.errors import UserError
from edgekit.passes.aten import BATCH_NORM, clean, is_call, node_facts, read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.calibrate import Batches, mean_weight_error, observe
from edgekit.passes.quantize.insert import insert_activations, insert_weight, quantize_weight, set_bias
from edgekit.passes.quantize.observers import HistogramObserver
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.policy import Plan, Site, make_plan
from edgekit.passes.quantize.schemes import Grid, activation_grid, weight_grid
from edgekit.program import Program, Record
from edgekit.targets import QuantizeRules

__all__ = ["Quantize"]


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Post-training int8 quantization of a folded program.

    The result computes, in float, exactly what an int8 engine that keeps to the standard computes, and stays trainable:
    weights are parameters behind ``edgekit::qdq``, whose gradient is the straight-through estimator.

    Attributes:
        rules: Where int8 goes and in which form, from the target.
        recipe: How ranges are found.
        batches: The calibration images.
        count: How many images ``batches`` gives.
    """

    rules: QuantizeRules
    recipe: Recipe
    batches: Batches
    count: int
    name: str = "quantize"

    def check(self, program: Program) -> None:
        for node in program.graph.graph.nodes:
            if is_call(node, BATCH_NORM):
                raise UserError(
                    f"'{program.name}' still has batch norm '{node.name}'", hint="run the fold passes before quantizing"
                )
            if is_call(node, {QDQ}):
                raise UserError(
                    f"'{program.name}' is quantized already ('{node.name}')", hint="quantize the float program"
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        example = next(self.batches(), None)
        if example is None:
            raise UserError("calibration: no image could be used", hint="give a folder with readable images (--data)")
        plan = make_plan(graph, node_facts(graph, *example), self.rules)
        observers = observe(graph, plan, self.batches, count=self.count, progress=context.progress)
        grids = self._grids(plan, observers)
        weights = {
            node: weight_grid(self._weight(graph, node), axis=axis, bits=self.rules.weight_bits)
            for node, axis in plan.weights
        }
        shifts: Mapping[fx.Node, torch.Tensor] = {}
        if self.recipe.bias_correction:
            errors = {
                node: quantize_weight(self._weight(graph, node), grid) - self._weight(graph, node)
                for node, grid in weights.items()
            }
            limit = min(self.recipe.bias_samples, self.count)
            shifts = mean_weight_error(graph, errors, self.batches, limit=limit, progress=context.progress)
        for node, shift in shifts.items():
            set_bias(graph, node, shift)
        pairs = insert_activations(graph, plan, grids)
        for node, grid in weights.items():
            insert_weight(graph, node, grid)
        clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{len(plan.weights)} layers to int8 with {pairs} activation pairs, {len(plan.skipped)} left float",
            changed=len(plan.weights),
            skipped=plan.skipped,
            details=self._details(plan, grids, observers),
        )
        return PassResult(program=program.recorded(record))

    def _weight(self, graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
        attribute = node.args[1]
        assert isinstance(attribute, fx.Node)
        return read_tensor(graph, attribute).detach()

    def _grids(self, plan: Plan, observers: Mapping[Site, HistogramObserver]) -> dict[Site, Grid]:
        grids: dict[Site, Grid] = {}
        for group in plan.groups:
            grid = activation_grid(
                observers[group[0]], role=group[0].role, activations=self.rules.activations, method=self.recipe.method
            )
            grids.update(dict.fromkeys(group, grid))
        return grids

    def _details(
        self, plan: Plan, grids: Mapping[Site, Grid], observers: Mapping[Site, HistogramObserver]
    ) -> dict[str, Any]:
        tensors = {
            f"{site.node.name} ({site.role})": {
                "observed": [observers[site].minimum, observers[site].maximum],
                "range": list(grids[site].limits()),
            }
            for group in plan.groups
            for site in group
        }
        return {"recipe": self.recipe.name, "method": self.recipe.method, "images": self.count, "activations": tensors}
