"""What each int8 layer costs the task: every layer is quantized alone and measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from edgekit.compiler.gates import drop_in_points
from edgekit.compiler.images import Images, program_answers
from edgekit.compiler.quantization import Quantized
from edgekit.compiler.records import LayerCost
from edgekit.evaluate import Answer, score
from edgekit.passes import PassContext, run_passes
from edgekit.passes.aten import layer_name
from edgekit.passes.quantize.returned import ReturnToFloat, quantized_layers
from edgekit.progress import SilentProgress
from edgekit.tasks import MetricReport

__all__ = ["rank_layers"]

# Each layer runs the whole network on these, so they are few; the order that they give needs no fine metric.
_IMAGES = 96


def rank_layers(quantized: Quantized, images: Images, context: PassContext) -> tuple[LayerCost, ...]:
    """Measures each layer's cost: the network with that layer alone in int8, against the float network.

    Where the images have labels, a layer whose metric drops beyond chance (the low end of the paired 95 % interval is
    above zero) comes before one whose does not; a larger sure drop comes first. All others, and all layers where there
    are no labels, are in the order of their signal-to-noise ratio at the network's outputs, worst first. The images are
    those of the calibration: the ones that decide on acceptance take no part in the choice.

    Args:
        quantized: The quantized program with the float one that it is made of.
        images: Calibration images; the first 96 are used.
        context: Where progress is shown.

    Returns:
        One record per int8 layer, the costliest first.
    """
    layers = quantized_layers(quantized.draft.graph)
    names = [node.name for node in layers]
    chosen = list(islice(images, _IMAGES))
    labelled = images.dataset.labelled
    quiet = PassContext(progress=SilentProgress())
    costs = []
    with context.progress.task("what each layer costs", len(layers) + 1) as bar:
        reference = list(program_answers(quantized.floating, chosen, None))
        truth = score(images.spec, reference) if labelled else None
        bar.advance()
        for node in layers:
            others = dict.fromkeys((name for name in names if name != node.name), "measured without it")
            alone = run_passes(quantized.draft, [ReturnToFloat(layers=others, floating=quantized.floating)], quiet)
            answers = list(program_answers(alone, chosen, None))
            costs.append(_cost(layer_name(node), node.name, answers, reference, truth, images))
            bar.advance()
    return tuple(sorted(costs, key=_guilt))


def _cost(
    layer: str,
    node: str,
    answers: Sequence[Answer],
    reference: Sequence[Answer],
    truth: MetricReport | None,
    images: Images,
) -> LayerCost:
    drop = None if truth is None else drop_in_points(truth, score(images.spec, answers))
    return LayerCost(layer=layer, node=node, drop=drop, sqnr_db=_sqnr(reference, answers))


def _sqnr(reference: Iterable[Answer], answers: Iterable[Answer]) -> float | None:
    signal = noise = 0.0
    for (_, expected), (_, actual) in zip(reference, answers, strict=True):
        for name, array in expected.items():
            signal += float(np.square(array, dtype=np.float64).sum())
            noise += float(np.square(np.asarray(actual[name], dtype=np.float64) - array).sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def _guilt(cost: LayerCost) -> tuple[float, float]:
    sure = 0.0 if cost.drop is None else max(0.0, cost.drop.low)
    return (-sure, math.inf if cost.sqnr_db is None else cost.sqnr_db)
