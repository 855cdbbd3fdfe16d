"""How much a unit matters: by the size of its weights, by its batch norm's scale, or by what the loss would lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import fx

from edgekit.passes.aten import BATCH_NORM, read_tensor
from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.units import Group, Unit

__all__ = ["Criterion", "by_batch_norm", "by_magnitude", "by_taylor"]

Criterion = Literal["magnitude", "batchnorm", "taylor"]
Loss = Callable[[tuple[torch.Tensor, ...], int], torch.Tensor]


def by_magnitude(flow: Flow, groups: Sequence[Group]) -> dict[int, float]:
    """L2 norm of the rows that make a unit, relative to its layer's mean, averaged over the layers that it ties.

    Source: Li et al., "Pruning Filters for Efficient ConvNets" (2017), with the sum over coupled layers of Fang et al.,
    "DepGraph" (2023).
    """
    tensors = _tensors(flow)
    squares = {name: tensor.detach().double().square().numpy() for name, tensor in tensors.items()}
    return _summed(groups, squares)


def by_taylor(
    flow: Flow, groups: Sequence[Group], batches: Iterable[tuple[torch.Tensor, ...]], loss: Loss
) -> dict[int, float]:
    """The loss that a unit's removal would cost, to first order: the square of the sum of weight times gradient.

    Args:
        flow: The labels of the program.
        groups: What can go.
        batches: Inputs of the program, a few hundred images.
        loss: Takes the program's outputs and the batch's number, gives a scalar.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning" (2019), equation 8.
    """
    graph = flow.program.graph
    tensors = _tensors(flow)
    parts = [part for group in groups for unit in group.units for part in unit.parts if part.weight]
    totals: dict[tuple[str, int], np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    wanted = sorted({part.name for part in parts})
    dims = {(part.name, part.dim) for part in parts}
    before = {name: tensors[name].requires_grad for name in wanted}
    try:
        for name in wanted:
            tensors[name].requires_grad_(True)
        for number, batch in enumerate(batches):
            result = graph(*batch)
            value = loss(tuple(result) if isinstance(result, (tuple, list)) else (result,), number)
            gradients = torch.autograd.grad(value, [tensors[name] for name in wanted], allow_unused=True)
            products = {
                name: (tensors[name].detach() * gradient).double()
                for name, gradient in zip(wanted, gradients, strict=True)
                if gradient is not None
            }
            for name, dim in sorted(dims):
                if name not in products:
                    continue
                others = [place for place in range(products[name].dim()) if place != dim]
                squared = products[name].sum(dim=others).square().numpy()
                totals[name, dim] = totals.get((name, dim), np.zeros_like(squared)) + squared
    finally:
        for name, flag in before.items():
            tensors[name].requires_grad_(flag)
    return {
        unit.root: float(
            sum(
                totals[part.name, part.dim][part.index].sum()
                for part in unit.parts
                if part.weight and (part.name, part.dim) in totals
            )
        )
        for group in groups
        for unit in group.units
    }


def by_batch_norm(flow: Flow, groups: Sequence[Group]) -> dict[int, float]:
    """Size of the batch norm's scale, relative to its layer's mean; units without one fall back to their magnitude.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming" (2017).
    """
    scales = {
        flow.names[str(node.args[1].target)]
        for node in flow.program.graph.graph.nodes
        if node.target in BATCH_NORM and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr"
    }
    tensors = _tensors(flow)
    means = {name: float(tensors[name].detach().abs().mean()) for name in scales}
    magnitude = by_magnitude(flow, groups)
    result = {}
    for group in groups:
        for unit in group.units:
            own = [
                float(tensors[part.name].detach()[torch.from_numpy(part.index)].abs().mean())
                / max(means[part.name], 1e-12)
                for part in unit.parts
                if part.name in scales
            ]
            result[unit.root] = float(np.mean(own)) if own else magnitude[unit.root]
    return result


def _tensors(flow: Flow) -> dict[str, torch.Tensor]:
    return {
        flow.names[str(node.target)]: read_tensor(flow.program.graph, node)
        for node in flow.program.graph.graph.nodes
        if node.op == "get_attr"
    }


def _summed(
    groups: Sequence[Group], squares: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]
) -> dict[int, float]:
    rows: dict[tuple[str, int], np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}

    def score(unit: Unit) -> float:
        found = []
        for part in unit.parts:
            if not part.weight:
                continue
            key = (part.name, part.dim)
            if key not in rows:
                others = tuple(place for place in range(squares[part.name].ndim) if place != part.dim)
                norms = np.sqrt(squares[part.name].sum(axis=others))
                rows[key] = norms / max(float(norms.mean()), 1e-30)
            found.append(float(np.mean(rows[key][part.index])))
        return float(np.mean(found))

    return {unit.root: score(unit) for group in groups for unit in group.units}
