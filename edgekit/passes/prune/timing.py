"""How the time of a network depends on its widths: measured layer by layer, so that widths can be chosen by it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import fx

from edgekit.passes.aten import layer_name, operator_name
from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.labels import Axis, IntArray
from edgekit.passes.prune.shapes import BATCH
from edgekit.program import Program

__all__ = ["REST", "Clock", "LayerSize", "LayerSizes", "LayerTimes", "Sample", "TimeModel"]

REST = "rest"
"""The family of all that is no layer: its time goes with the elements that all layers read and write."""


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Where the time of one engine goes.

    Attributes:
        layers: Seconds of each layer that computes, by its name; what is fused into it is in it.
        rest: Seconds of everything else.
    """

    layers: Mapping[str, float]
    rest: float


class Clock(Protocol):
    """Builds and times programs on the target, as they will run there."""

    def layers(self, program: Program) -> LayerTimes:
        """Returns where the time goes; the program may have untrained or pruned weights."""

    def ratio(self, program: Program) -> float:
        """Returns the time of a program over the given network's, measured side by side."""

    def known(self, family: str) -> Sequence[Sample]:
        """Returns what was measured of a family of layers before, on this target with these libraries."""

    def learned(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        """Keeps what was measured, by family, for the next time."""


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """Of one layer, for one image.

    Attributes:
        macs: Multiply-accumulates.
        elements: Elements that it reads and writes, weights not counted.
    """

    macs: float
    elements: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A layer's size, and the time that it took."""

    size: LayerSize
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Layer:
    node: str
    name: str
    family: str
    work: tuple[tuple[float, tuple[IntArray, ...]], ...]
    moved: tuple[tuple[float, tuple[IntArray, ...]], ...]


class LayerSizes:
    """The layers of a program and their sizes when units are gone.

    Args:
        flow: The labels.
    """

    def __init__(self, flow: Flow) -> None:
        costs: dict[fx.Node, list[tuple[float, tuple[IntArray, ...]]]] = {}
        for cost in flow.costs:
            axes = tuple(flow.labels.find(axis) for axis in cost.axes)
            costs.setdefault(cost.node, []).append((cost.factor, axes))
        self._layers = [
            _Layer(
                node=node.name,
                name=layer_name(node),
                family=_family(flow, node),
                work=tuple(work),
                moved=tuple(
                    _elements(flow, item) for item in (*node.all_input_nodes, node) if _is_activation(flow, item)
                ),
            )
            for node, work in costs.items()
        ]
        self._touched: dict[int, set[int]] = {}
        for index, layer in enumerate(self._layers):
            for _, axes in (*layer.work, *layer.moved):
                for axis in axes:
                    for root in np.unique(axis).tolist():
                        self._touched.setdefault(root, set()).add(index)
        self._count = len(flow.labels)

    def __len__(self) -> int:
        return len(self._layers)

    def everyone_alive(self) -> npt.NDArray[np.bool_]:
        """Returns a mark for each class of labels, all true; set those of units that leave to false."""
        return np.ones(self._count, dtype=bool)

    def node(self, index: int) -> str:
        """Returns the name of a layer's node."""
        return self._layers[index].node

    def name(self, index: int) -> str:
        """Returns a layer's name, as engines have it."""
        return self._layers[index].name

    def family(self, index: int) -> str:
        """Returns what a layer's time function is shared by: operator, kernel, image size, grouping."""
        return self._layers[index].family

    def touched_by(self, roots: Collection[int]) -> set[int]:
        """Returns the layers whose size depends on any of these units."""
        return set().union(*(self._touched.get(root, set()) for root in roots)) if roots else set()

    def size(self, index: int, alive: npt.NDArray[np.bool_]) -> LayerSize:
        """Returns the size of a layer."""
        layer = self._layers[index]
        return LayerSize(macs=_sum(layer.work, alive), elements=_sum(layer.moved, alive))


class TimeModel:
    """Seconds of a layer from its size: a constant, and a price per multiply-accumulate and per element.

    The three are fitted for each family on what was measured, none below zero, the relative errors squared. They say
    which change of width saves how much; whether the whole network meets what was asked for is measured, not predicted.

    Args:
        samples: By family.
    """

    def __init__(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        self._prices = {family: _fitted(items) for family, items in samples.items() if items}

    def seconds(self, family: str, size: LayerSize) -> float:
        """Returns the time of a layer; 0 for a family of which nothing was measured: it is part of the rest."""
        prices = self._prices.get(family)
        return 0.0 if prices is None else float(prices @ np.array([1.0, size.macs, size.elements]))


def _fitted(samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    rows = np.array([[1.0, item.size.macs, item.size.elements] for item in samples])
    times = np.array([max(item.seconds, 1e-9) for item in samples])
    weighted = rows / times[:, np.newaxis]
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    best, least = np.array([float(np.median(times)), 0.0, 0.0]), math.inf
    # Three prices that are not negative: of the few choices of which are zero, the one with the smallest error.
    for count in (3, 2, 1):
        for chosen in combinations(range(3), count):
            columns = list(chosen)
            found, *_ = np.linalg.lstsq(weighted[:, columns] / scale[columns], np.ones(len(times)), rcond=1e-9)
            if (found < 0).any():
                continue
            prices = np.zeros(3)
            prices[columns] = found / scale[columns]
            error = float(np.square(weighted @ prices - 1).sum())
            if error < least:
                best, least = prices, error
    return best


def _family(flow: Flow, node: fx.Node) -> str:
    sizes = [_spatial(flow.shape(item)) for item in (*node.all_input_nodes[:1], node) if flow.is_tensor(item)]
    weight = node.args[1] if len(node.args) > 1 else None
    kernel = flow.shape(weight)[2:] if flow.is_tensor(weight) else ()
    groups = [item for item in node.args[2:] if isinstance(item, int) and not isinstance(item, bool)]
    grouped = "grouped" if any(item > 1 for item in groups) else "dense"
    return f"{operator_name(node)} {'x'.join(map(str, kernel))} {' '.join(sizes)} {grouped}"


def _spatial(shape: tuple[int, ...]) -> str:
    inner = shape[2:] if len(shape) >= 3 else ()
    return "x".join(str(size) for size in inner) if len(shape) >= 4 else "x".join(str(size) for size in shape[1:-1])


def _is_activation(flow: Flow, node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op != "get_attr" and flow.is_tensor(node)


def _elements(flow: Flow, node: fx.Node) -> tuple[float, tuple[IntArray, ...]]:
    factor, axes = 1.0, []
    for size, axis in zip(flow.shape(node), flow.value(node), strict=True):
        if isinstance(axis, Axis):
            axes.append(flow.labels.find(axis.labels))
        else:
            factor *= size // BATCH if size % BATCH == 0 else size
    return factor, tuple(axes)


def _sum(parts: Sequence[tuple[float, tuple[IntArray, ...]]], alive: npt.NDArray[np.bool_]) -> float:
    return sum(factor * math.prod(int(alive[axis].sum()) for axis in axes) for factor, axes in parts)
