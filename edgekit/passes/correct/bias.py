"""Bias correction: what rounding adds to the mean of each output channel goes back into the bias.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.calibration import Corrections
from edgekit.errors import ConfigError
from edgekit.passes.aten import CONV, LINEAR, argument, is_call, read_tensor
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.correct.judge import Verdict, gains, gather, left_alone, not_done, too_few
from edgekit.passes.correct.lockstep import Lockstep, Stop, channel_axis, check_pair, int8_layers, partners, weight_pair
from edgekit.passes.quantize.insert import set_bias
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.samples import Batch, CalibrationData
from edgekit.passes.stream import Streamer
from edgekit.program import Program, Record
from edgekit.progress import ProgressTask

__all__ = ["CorrectBias"]


@dataclass(frozen=True, kw_only=True)
class CorrectBias:
    """Corrects the bias of every int8 layer, and keeps each correction only where it gains on held-out images.

    ``once`` looks at the rounding of the weights alone: ``E[conv(x, Wq - W)]`` on the float network's activations. A
    layer is linear, so the mean of its input over images is all that is needed: one forward pass of the float graph, in
    memory that does not grow with the number of images.

    ``sequential`` goes through the layers in order and takes the mean difference of each output between the float and
    the quantized network, rounding of activations and errors of earlier layers (corrected ones) included.

    Both are judged by the squared norm of what the mean of the layer's output on the held-out images is off by.

    Attributes:
        floating: The very program that was quantized.
        corrections: ``bias`` (not ``off``), ``samples`` and ``held_out`` of the recipe.
        data: The calibration images.
    """

    floating: Program
    corrections: Corrections
    data: CalibrationData
    name: str = "correct-bias"

    def __post_init__(self) -> None:
        if self.corrections.bias == "off":
            raise ConfigError("bias: expected once or sequential for this pass, got off")

    def check(self, program: Program) -> None:
        check_pair(self.floating, program)

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        if too_few(self.data):
            return PassResult(program=program.recorded(not_done(self.name, "bias correction", program, self.data)))
        with torch.no_grad():
            verdicts = (self._once if self.corrections.bias == "once" else self._sequential)(program, context)
        program.graph.recompile()
        kept = sum(isinstance(item, Verdict) and item.kept for item in verdicts.values())
        record = Record(
            stage=self.name,
            summary=f"{kept} of {len(verdicts)} biases corrected ({self.corrections.bias})",
            changed=kept,
            skipped=left_alone("bias correction", verdicts),
            details={"mode": self.corrections.bias, "gains": gains(verdicts)},
        )
        return PassResult(program=program.recorded(record))

    def _once(self, program: Program, context: PassContext) -> dict[fx.Node, Verdict | str]:
        graph, options = self.floating.graph, self.corrections
        twins = partners(graph, program.graph)
        layers = int8_layers(program.graph)
        with context.progress.task("bias correction", options.samples + options.held_out) as bar:
            fit, held_out = (
                _mean_inputs(graph, {twins[node] for node in layers}, images, bar)
                for images in (self.data.fit(options.samples), self.data.held_out(options.held_out))
            )
        verdicts: dict[fx.Node, Verdict | str] = {}
        for node in layers:
            partner = twins[node]
            error = _rounded_weight(program.graph, node) - _parameter(graph, partner)
            shift, check = (_mean_output(partner, means[partner], error) for means in (fit, held_out))
            verdict = Verdict.of_totals(float(check.square().sum()), float((check - shift).square().sum()))
            if verdict.kept:
                set_bias(program.graph, node, shift)
            verdicts[node] = verdict
        return verdicts

    def _sequential(self, program: Program, context: PassContext) -> dict[fx.Node, Verdict | str]:
        images = gather(self.data, self.corrections)
        layers = int8_layers(program.graph)
        verdicts: dict[fx.Node, Verdict | str] = {}
        with context.progress.task("bias correction, layer by layer", len(layers)) as bar:
            for stop in Lockstep(self.floating.graph, program.graph, images.batches).stops(layers):
                shift, check = (_mean_difference(stop, part) for part in (images.fit_batches, images.held_out_batches))
                verdict = Verdict.of_totals(float(check.square().sum()), float((check - shift).square().sum()))
                if verdict.kept:
                    stop.subtract_from_bias(shift)
                verdicts[stop.node] = verdict
                bar.advance()
        return verdicts


def _mean_difference(stop: Stop, batches: range) -> torch.Tensor:
    """The mean of the quantized layer's output minus the float layer's: float64 (channels,)."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        difference = stop.error(batch)
        rows = difference.transpose(0, channel_axis(stop.node, difference)).flatten(1)
        total, count = total + rows.double().sum(1), count + rows.shape[1]
    return total / count


def _mean_inputs(
    graph: fx.GraphModule, layers: set[fx.Node], batches: Iterator[Batch], bar: ProgressTask
) -> dict[fx.Node, torch.Tensor]:
    """Averages what each layer reads, over images.

    Returns:
        float64. Where every position is weighted alike (a linear, an unpadded 1x1 convolution that skips none) the mean
        over positions too, (1, channels, 1...) or (channels,); else (1, channels, positions...).
    """
    totals: dict[fx.Node, torch.Tensor] = {}
    counts: dict[fx.Node, int] = {}
    pointwise = {node for node in layers if _is_pointwise(graph, node)}

    class Watcher(Streamer):
        def saw(self, node: fx.Node, result: Any) -> None:
            if node in layers:
                source: Any = self.fetch_args_kwargs_from_env(node)[0][0]
                total, count = _summed(node, source, pointwise=node in pointwise)
                totals[node] = totals[node] + total if node in totals else total
                counts[node] = counts.get(node, 0) + count

    ordered = [node for node in graph.graph.nodes if node in layers]
    watcher = Watcher(graph, last=ordered[-1] if ordered else None)
    for batch in batches:
        watcher.stream(batch)
        bar.advance(len(batch[0]))
    return {node: total / counts[node] for node, total in totals.items()}


def _summed(node: fx.Node, source: torch.Tensor, *, pointwise: bool) -> tuple[torch.Tensor, int]:
    """Sums a layer's input over what makes no difference to the mean of its output; also returns over how many."""
    if is_call(node, LINEAR):
        rows = source.flatten(0, -2)
        return rows.sum(0).double(), len(rows)
    # One image's sum in the tensor's own float32 is exact enough, and needs no copy of it in float64.
    if pointwise:
        positions = list(range(2, source.ndim))
        return source.sum(positions, keepdim=True).double().sum(0, keepdim=True), source.numel() // source.shape[1]
    # Image by image: a sum over the first dimension is slow where channels come last in memory.
    return sum(source[1:], start=source[0])[None].double(), len(source)


def _is_pointwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a convolution's mean output follows from its mean input per channel: 1x1, unpadded, stride 1."""
    if not is_call(node, CONV):
        return False
    ones = [*_parameter(graph, node).shape[2:], *_numbers(argument(node, 3, "stride", 1))]
    return all(item == 1 for item in ones) and argument(node, 4, "padding", 0) in (0, [0], [0, 0], [0, 0, 0], "valid")


def _numbers(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _mean_output(node: fx.Node, mean: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The mean over positions, per channel, of the layer with another weight and no bias: float64 (channels,)."""
    assert callable(node.target)
    keywords = {key: value for key, value in node.kwargs.items() if key != "bias"}
    output: torch.Tensor = node.target(mean, weight.double(), None, *node.args[3:], **keywords)
    return output.transpose(0, channel_axis(node, output)).flatten(1).mean(1) if output.ndim > 1 else output


def _parameter(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return read_tensor(graph, weight).detach()


def _rounded_weight(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    pair = weight_pair(node)
    assert pair is not None
    tensors = [read_tensor(graph, item).detach() for item in pair.args[:3] if isinstance(item, fx.Node)]
    rounded: torch.Tensor = QDQ(*tensors, *pair.args[3:])
    return rounded
