"""The quantization pass: plan, observe, choose grids, insert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.calibration import Recipe
from edgekit.errors import ModelError, UserError
from edgekit.passes.aten import BATCH_NORM, clean, is_call, layer_name, node_facts, read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.calibrate import Observed, observe
from edgekit.passes.quantize.evidence import tensor_findings, tensor_records
from edgekit.passes.quantize.grids import Form, Grid, activation_form, make_grid
from edgekit.passes.quantize.insert import insert_activations, insert_weight
from edgekit.passes.quantize.observers import Limits, SearchObserver, make_observer
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.pixels import pixel_grid
from edgekit.passes.quantize.policy import Plan, Site, make_plan
from edgekit.passes.quantize.search import search
from edgekit.passes.quantize.weights import weight_grid
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record
from edgekit.targets import QuantizeRules

__all__ = ["Quantize"]

# Raw pixels are integers already: nothing was chosen.
_PIXELS = "pixels"


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Post-training int8 quantization of a folded program.

    The result computes, in float, exactly what an int8 engine that keeps to the standard computes, and stays trainable:
    weights are parameters behind ``edgekit::qdq``, whose gradient is the straight-through estimator.

    The record's ``details`` hold ``tensors`` and ``findings`` (:mod:`edgekit.passes.quantize.evidence`).

    Attributes:
        rules: Where int8 goes and in which form, from the target.
        recipe: How ranges are found. Its corrections are passes of their own.
        data: The calibration images.
    """

    rules: QuantizeRules
    recipe: Recipe
    data: CalibrationData
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
        facts = node_facts(graph, *self.data.example())
        plan = make_plan(graph, facts, self.rules)
        layers = {node: (_weight(graph, node), axis) for node, axis in plan.weights}
        observed = observe(
            graph, plan, self.data, observer=lambda: make_observer(self.recipe.ranges), progress=context.progress
        )
        weights = {
            node: weight_grid(weight, axis=axis, bits=self.rules.weight_bits, method=self.recipe.ranges.weights)
            for node, (weight, axis) in layers.items()
        }
        rounded = {node: grid.rounded(layers[node][0]) for node, grid in weights.items()}
        pixels = {group[0]: pixel_grid(graph, facts, group, self.rules) for group in plan.groups}
        grids, methods = self._grids(graph, plan, observed, rounded, pixels, context)
        records = tensor_records(plan, grids, observed, methods)
        pairs = insert_activations(graph, plan, grids)
        for node, grid in weights.items():
            insert_weight(graph, node, grid)
        clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{len(plan.weights)} layers to int8 with {pairs} activation pairs, {len(plan.skipped)} left float",
            changed=len(plan.weights),
            skipped=plan.skipped,
            details={
                "recipe": self.recipe.name,
                "method": self.recipe.ranges.method,
                "images": self.data.count,
                "tensors": records,
                "findings": tensor_findings(records, images=self.data.count),
            },
        )
        return PassResult(program=program.recorded(record))

    def _grids(
        self,
        graph: fx.GraphModule,
        plan: Plan,
        observed: Mapping[Site, Observed],
        rounded: Mapping[fx.Node, torch.Tensor],
        pixels: Mapping[Site, Grid | None],
        context: PassContext,
    ) -> tuple[dict[Site, Grid], dict[Site, str]]:
        """Returns each site's grid, and the name of the way that found it."""
        method = self.recipe.ranges.method
        choices: dict[Site, dict[str, Grid]] = {}
        for group in plan.groups:
            exact = pixels[group[0]]
            if exact is not None:
                choices.update({site: {_PIXELS: exact} for site in group})
                continue
            seen = observed[group[0]]
            form = self._form(group[0], seen.whole.observed)
            found = (
                seen.whole.candidates(form)
                if isinstance(seen.whole, SearchObserver)
                else {method: seen.whole.limits(form)}
            )
            # Who asks for minimum and maximum gets them.
            credible = None if method == "minmax" else seen.credible()
            grids = {name: make_grid(*_within(limits, credible), form) for name, limits in found.items()}
            choices.update(dict.fromkeys(group, grids))
        methods = {site: next(iter(grids)) for site, grids in choices.items()}
        if method == "search":
            limit = self.recipe.ranges.search_samples
            best = search(graph, plan, choices, rounded, self.data, limit=limit, progress=context.progress)
            methods.update(best)
        return {site: choices[site][methods[site]] for site in choices}, methods

    def _form(self, site: Site, observed: Limits) -> Form:
        return activation_form(float(observed[0]), role=site.role, activations=self.rules.activations)


def _within(limits: Limits, bounds: tuple[float, float] | None) -> Limits:
    return limits if bounds is None else (limits[0].clamp_min(bounds[0]), limits[1].clamp_max(bounds[1]))


def _weight(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    attribute = node.args[1]
    assert isinstance(attribute, fx.Node)
    weight = read_tensor(graph, attribute).detach()
    if not bool(weight.isfinite().all()):
        raise ModelError(
            f"the weight of layer '{layer_name(node)}' holds NaN or infinity",
            hint="the checkpoint is damaged, or training diverged: evaluate the model before compiling it",
        )
    return weight
