"""Adaptive rounding: the weights of a layer go to integers together, against the layer's float output.

Sources: Nagel et al. 2020, arXiv:2004.10568 (the objective: the layer's output, not its weights); Frantar et al. 2022,
arXiv:2210.17323 (the order and the compensation); Hubara et al. 2021, arXiv:2006.10518, section 3 (the layer's own
quantized inputs, least squares).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.errors import ConfigError
from edgekit.passes.aten import read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.correct.judge import Images, Verdict, gains, gather, left_alone, not_done, too_few
from edgekit.passes.correct.least_squares import best_real, round_in_order, sweep
from edgekit.passes.correct.lockstep import Lockstep, Stop, check_pair, int8_layers, weight_pair, why_shared
from edgekit.passes.correct.rows import Moments, collect, why_no_rows
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record

__all__ = ["AdaptRounding"]

# Rows of inputs that a layer's Gram matrix is summed over, taken evenly from the images.
_ROWS = 8192
# Share of the mean diagonal that is added to the diagonal when rounding (Frantar et al. 2022, section 3.3, step 3).
_ROUNDING_DAMPING = 0.01
# The same for the least squares before: enough to hold back what few rows say of many weights.
_TARGET_DAMPING = 1.0
# None raises the error on the images fitted on; the number is a choice.
_SWEEPS = 2


@dataclass(frozen=True, kw_only=True)
class AdaptRounding:
    """Chooses the integers of every int8 weight by what they do to the layer's output.

    Layers are taken in order, each with the inputs that it has in the quantized network. The target of a layer is the
    float network's output, so that a weight also makes up, as far as it can, for errors of the layers before. The
    result stands in the graph as before: a float parameter behind a pair whose scale did not change; it now holds
    integers times the scale, which export rounds to exactly these integers.

    Attributes:
        floating: The very program that was quantized.
        corrections: ``rounding`` (``adaptive``), ``samples`` and ``held_out`` of the recipe.
        data: The calibration images.
    """

    floating: Program
    corrections: Corrections
    data: CalibrationData
    name: str = "adapt-rounding"

    def __post_init__(self) -> None:
        if self.corrections.rounding != "adaptive":
            raise ConfigError(f"rounding: expected adaptive for this pass, got {self.corrections.rounding}")

    def check(self, program: Program) -> None:
        check_pair(self.floating, program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        if too_few(self.data):
            return PassResult(program=program.recorded(not_done(self.name, "adaptive rounding", program, self.data)))
        images = gather(self.data, self.corrections)
        layers = int8_layers(program.graph)
        verdicts: dict[fx.Node, Verdict | str] = {}
        with torch.no_grad(), context.progress.task("adaptive rounding, layer by layer", len(layers)) as bar:
            steps = Lockstep(self.floating.graph, program.graph, images.batches)
            for number, stop in enumerate(steps.stops(layers)):
                verdicts[stop.node] = self._layer(program.graph, stop, images, seed=number)
                bar.advance()
        kept = sum(isinstance(item, Verdict) and item.kept for item in verdicts.values())
        record = Record(
            stage=self.name,
            summary=f"weights of {kept} of {len(verdicts)} layers rounded adaptively",
            changed=kept,
            skipped=left_alone("adaptive rounding", verdicts),
            details={"gains": gains(verdicts)},
        )
        return PassResult(program=program.recorded(record))

    def _layer(self, graph: fx.GraphModule, stop: Stop, images: Images, *, seed: int) -> Verdict | str:
        weight = stop.float_weight()
        for why in (why_shared(graph, stop.node), why_no_rows(stop.node, weight)):
            if why is not None:
                return why
        halves = collect(stop, images.fit_batches, rows=_ROWS, seed=seed)
        if not all(bool(half.gram.isfinite().all() & half.product.isfinite().all()) for half in halves):
            return "its input or its output holds NaN or infinity"
        rounded = self._rounded(graph, stop, weight, halves)
        verdict = Verdict.of_images(*(_errors(stop, images.held_out_batches, weight) for weight in (None, rounded)))
        if verdict.kept:
            stop.set_weight(rounded)
        return verdict

    @staticmethod
    def _rounded(
        graph: fx.GraphModule, stop: Stop, weight: torch.Tensor, halves: tuple[Moments, Moments]
    ) -> torch.Tensor:
        """Returns the weight's new values, integers times the scale."""
        pair = weight_pair(stop.node)
        assert pair is not None
        _, scale, _, _, qmin, qmax = pair.args
        assert isinstance(scale, fx.Node)
        assert isinstance(qmin, int)
        assert isinstance(qmax, int)
        whole = halves[0] + halves[1]
        grouped = weight.reshape(whole.product.shape)
        step = read_tensor(graph, scale).reshape(*whole.product.shape[:2], 1)
        target = _target(grouped, halves)
        damping = _ROUNDING_DAMPING * _mean_diagonal(whole)
        levels = round_in_order(target, whole.gram, step, (qmin, qmax), damping)
        for _ in range(_SWEEPS):
            levels = sweep(levels, target, whole.gram, step, (qmin, qmax), damping)
        return (levels * step).reshape(weight.shape)


def _errors(stop: Stop, batches: range, weight: torch.Tensor | None) -> torch.Tensor:
    """The squared error of the layer's output in each image, float64 (images,)."""
    errors = (stop.error(batch, weight=weight) for batch in batches)
    return torch.cat([error.square().flatten(1).sum(1).double() for error in errors])


def _target(weight: torch.Tensor, halves: tuple[Moments, Moments]) -> torch.Tensor:
    """Returns the real weights to round: the float ones, or those of least squares where they do better elsewhere."""
    fit, check = halves

    def error(values: torch.Tensor) -> float:
        """The squared error on the other half, up to a constant."""
        return float(((values @ check.gram) * values - 2 * values * check.product).double().sum())

    def solved(moments: Moments) -> torch.Tensor:
        return best_real(moments.gram, moments.product, weight, _TARGET_DAMPING * _mean_diagonal(moments))

    return solved(fit + check) if error(solved(fit)) < error(weight) else weight


def _mean_diagonal(moments: Moments) -> float:
    mean = float(moments.gram.diagonal(dim1=-2, dim2=-1).mean())
    # An input of nothing but zeros leaves the matrix empty; any damping then gives the weights back as they are.
    return mean if mean > 0 and math.isfinite(mean) else 1.0
