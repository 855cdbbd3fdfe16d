"""The diagnosis of a quantized program: signal to noise of every compute layer, and which of them to blame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, is_call, layer_name
from edgekit.passes.correct.lockstep import check_pair, partners, weight_pair
from edgekit.passes.diagnose.blame import blame
from edgekit.passes.diagnose.noise import NodeNoise, Walk, noise_to_db
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import Progress

__all__ = ["Diagnosis", "LayerNoise", "OutputNoise", "diagnose"]

# The passes whose records say why a layer is float.
_DECIDE = frozenset({"quantize", "return-to-float"})


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """One compute layer. Ratios are ``10 log10(sum of squares of the float value / of the error)`` over all images.

    A ratio is None where it is infinite (no error) or could not be had.

    Attributes:
        name: What people call it (:func:`edgekit.passes.aten.layer_name`).
        node: Name of the graph's node.
        kind: The operator, such as ``conv2d``, ``linear``, ``matmul``.
        precision: ``int8`` or ``float``.
        own_sqnr_db: Its output when it alone is quantized, its input and its weight, on float inputs.
        input_sqnr_db: The same with its input alone.
        weight_sqnr_db: The same with its weight alone.
        accumulated_sqnr_db: Its output in the quantized program against that in the float program.
        reason: Why it is float; empty for int8.
        blame_sqnr_db: The noise that is its fault (:func:`edgekit.passes.diagnose.blame.blame`), as a ratio.
        rank: 1 is the most to blame; None for a layer that no noise is put down to.
    """

    name: str
    node: str
    kind: str
    precision: str
    own_sqnr_db: float | None
    input_sqnr_db: float | None
    weight_sqnr_db: float | None
    accumulated_sqnr_db: float | None
    reason: str
    blame_sqnr_db: float | None
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class OutputNoise:
    """One output of the network: signal to noise of the whole quantized program, None where infinite or unknown."""

    name: str
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What :func:`diagnose` found; :func:`edgekit.config.to_dict` makes plain JSON-able data of it.

    Attributes:
        images: How many images it rests on.
        outputs: In the program's order.
        layers: In the graph's order.
    """

    images: int
    outputs: tuple[OutputNoise, ...]
    layers: tuple[LayerNoise, ...]

    @property
    def worst_first(self) -> tuple[LayerNoise, ...]:
        """The layers that have a rank, the most to blame first."""
        ranked = [(layer.rank, layer) for layer in self.layers if layer.rank is not None]
        return tuple(layer for _, layer in sorted(ranked, key=lambda item: item[0]))


def diagnose(
    floating: Program, quantized: Program, data: CalibrationData, *, limit: int, progress: Progress
) -> Diagnosis:
    """Compares a quantized program with its float form, layer by layer, on images that nothing was fitted on.

    Each batch runs once through both graphs and, for the sources of noise on their own, four more times through each
    int8 layer. Memory is that of one batch.

    Args:
        floating: The very program that was quantized.
        quantized: The quantized one, with whatever corrections.
        data: The calibration images; the held-out ones are used, or all where there are none.
        limit: At most this many images.
        progress: Where progress is shown.

    Raises:
        UserError: The programs do not belong together.
    """
    check_pair(floating, quantized)
    walk = Walk(floating.graph, quantized.graph, partners(floating.graph, quantized.graph))
    images = 0
    source = data.batches if next(data.held_out(1), None) is None else partial(data.held_out, limit)
    with torch.no_grad(), progress.task("diagnosing", limit) as bar:
        for batch in source():
            walk.add(batch)
            images += len(batch[0])
            bar.advance(len(batch[0]))
    faults = blame(walk.nodes, walk.pairs, walk.sizes)
    order = sorted((node for node in faults if faults[node] > 0), key=lambda node: -faults[node])
    ranks = {node: place for place, node in enumerate(order, start=1)}
    # Later records know better: a layer may be returned to float after all.
    reasons = {
        item.where: item.why for record in quantized.history for item in record.skipped if record.stage in _DECIDE
    }
    layers = tuple(
        LayerNoise(
            name=layer_name(node),
            node=node.name,
            kind=_kind(node),
            precision="int8" if _is_int8(node, found) else "float",
            own_sqnr_db=found.own.sqnr_db,
            input_sqnr_db=noise_to_db(sum(noise.ratio for noise in found.inputs.values())),
            weight_sqnr_db=found.weight.sqnr_db,
            accumulated_sqnr_db=found.accumulated.sqnr_db,
            reason="" if _is_int8(node, found) else reasons.get(node.name, reasons.get(layer_name(node), "")),
            blame_sqnr_db=noise_to_db(faults[node]),
            rank=ranks.get(node),
        )
        for node, found in walk.nodes.items()
        if node in faults
    )
    outputs = tuple(
        OutputNoise(name=spec.name, sqnr_db=noise.sqnr_db)
        for spec, noise in zip(quantized.outputs, walk.outputs, strict=False)
    )
    return Diagnosis(images=images, outputs=outputs, layers=layers)


def _is_int8(node: fx.Node, found: NodeNoise) -> bool:
    """A layer with an int8 weight, or a product of int8 activations."""
    return weight_pair(node) is not None or (not is_call(node, COMPUTE) and bool(found.inputs))


def _kind(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]
