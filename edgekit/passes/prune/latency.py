"""Widths and blocks for a latency: by the target's own clock, at the least change of the answers.

Source: Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack" (HALP), arXiv:2210.06659: importance per
latency saved, from a table of what layers take at which width. Here the knapsack is filled greedily, since what a
layer's width saves depends on its neighbours' widths; residual blocks compete with channels; and what was chosen is
timed as a whole and the choice corrected until it meets what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgekit.passes.prune.blocks import Block, BlockPrices, running_without
from edgekit.passes.prune.choose import Importance, levels, ranked
from edgekit.passes.prune.flow import Flow
from edgekit.passes.prune.timing import REST, Clock, LayerSize, LayerSizes, Sample, TimeModel
from edgekit.passes.prune.units import Group, Unit
from edgekit.program import Program
from edgekit.progress import ProgressTask

__all__ = ["CLOSE", "Path", "Trial", "learn_times", "search"]

CLOSE = 0.02
"""Relative distance of the time from what was asked for that is not worth another engine."""
_TRIALS = 6
# Engines of random widths that are timed layer by layer; each layer of a network is one sample more of its family.
_PROBES = 4
_ENOUGH = 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One engine that was timed.

    Attributes:
        predicted: Share of the given network's time, by the fitted times of layers.
        measured: The same, measured side by side.
    """

    predicted: float
    measured: float


def learn_times(
    flow: Flow,
    groups: Sequence[Group],
    cut: Callable[[Sequence[Unit]], Program],
    clock: Clock,
    *,
    align: int,
    seed: int,
    bar: ProgressTask,
) -> TimeModel:
    """Times the layers of the network at several widths, as far as the clock does not know them yet.

    Args:
        flow: The labels.
        groups: What can go.
        cut: Returns the program without units.
        clock: Of the target.
        align: Kept channels are multiples of this.
        seed: Of the widths.
        bar: Advanced once per engine.
    """
    sizes = LayerSizes(flow)
    families = {sizes.family(index) for index in range(len(sizes))} | {REST}
    known = {family: list(clock.known(family)) for family in families}
    if all(len(items) >= _ENOUGH for items in known.values()):
        return TimeModel(known)
    generator = np.random.default_rng(seed)
    new: dict[str, list[Sample]] = {}
    # Without widths that can shrink, every engine would be the same.
    for number in range(_PROBES if groups else 1):
        units: list[Unit] = []
        for group in groups if number else ():
            count = int(generator.choice(levels(group, align)))
            units += [group.units[place] for place in generator.permutation(len(group.units))[:count]]
        alive = sizes.everyone_alive()
        alive[[unit.root for unit in units]] = False
        times = clock.layers(cut(units) if units else flow.program)
        moved = 0.0
        for index in range(len(sizes)):
            size = sizes.size(index, alive)
            moved += size.elements
            seconds = times.layers.get(sizes.name(index))
            if seconds is not None:
                new.setdefault(sizes.family(index), []).append(Sample(size=size, seconds=seconds))
        new.setdefault(REST, []).append(Sample(size=LayerSize(macs=0.0, elements=moved), seconds=times.rest))
        bar.advance()
    clock.learned(new)
    return TimeModel({family: [*items, *new.get(family, ())] for family, items in known.items()})


@dataclass(frozen=True, kw_only=True)
class _Step:
    units: tuple[Unit, ...]
    block: Block | None
    share: float


@dataclass(kw_only=True)
class _State:
    alive: npt.NDArray[np.bool_]
    running: set[str]
    taken: list[int]
    sizes: list[LayerSize]
    seconds: list[float] = field(default_factory=list)
    total: float = 0.0


class Path:
    """What leaves, one step after the other: each time the channels or the block that cost least per time saved.

    Args:
        flow: The labels.
        groups: Widths that can shrink.
        importance: What each unit's removal costs, in the unit of ``prices``.
        prices: Of the blocks that can leave; None where none shall.
        model: Seconds of layers.
        align: Kept channels are multiples of this.
    """

    def __init__(
        self,
        flow: Flow,
        groups: Sequence[Group],
        importance: Importance,
        prices: BlockPrices | None,
        model: TimeModel,
        *,
        align: int,
    ) -> None:
        self._graph = flow.program.graph.graph
        self._layers, self._model, self._prices = LayerSizes(flow), model, prices
        self._orders = [ranked(group, importance) for group in groups]
        self._levels = [levels(group, align) for group in groups]
        self._importance = importance
        alive = self._layers.everyone_alive()
        state = _State(
            alive=alive,
            running=running_without(self._graph, ()),
            taken=[0] * len(groups),
            sizes=[self._layers.size(index, alive) for index in range(len(self._layers))],
        )
        state.seconds = [self._seconds(index, size) for index, size in enumerate(state.sizes)]
        state.total = self._whole(state.seconds, state.sizes)
        self._state, self._start = state, state.total
        self._steps: list[_Step] = []
        self._ended = False

    def upto(self, share: float) -> int:
        """Returns the fewest steps after which at most ``share`` of the time is left by prediction; all if none is."""
        while not self._ended and (not self._steps or self._steps[-1].share > share):
            step = self._next()
            if step is None:
                self._ended = True
            else:
                self._steps.append(step)
        return next((count for count, step in enumerate(self._steps, 1) if step.share <= share), len(self._steps))

    def share(self, count: int) -> float:
        """Returns the predicted share of the time after some steps."""
        return 1.0 if count == 0 else self._steps[count - 1].share

    def ends(self, count: int) -> bool:
        """Whether there is no step beyond."""
        self.upto(self.share(count) * (1 - 1e-9))
        return count >= len(self._steps)

    def gone(self, count: int) -> tuple[tuple[Unit, ...], tuple[Block, ...]]:
        """Returns the units and blocks that have left after some steps."""
        steps = self._steps[:count]
        return (
            tuple(unit for step in steps for unit in step.units),
            tuple(step.block for step in steps if step.block is not None),
        )

    def _seconds(self, index: int, size: LayerSize) -> float:
        return self._model.seconds(self._layers.family(index), size)

    def _whole(self, seconds: Sequence[float], sizes: Sequence[LayerSize]) -> float:
        elements = sum(size.elements for size in sizes)
        return sum(seconds) + self._model.seconds(REST, LayerSize(macs=0.0, elements=elements))

    def _next(self) -> _Step | None:
        state = self._state
        offers: list[tuple[float, int]] = []
        for number, (order, steps) in enumerate(zip(self._orders, self._levels, strict=True)):
            units = _between(order, steps, state.taken[number])
            saved = state.total - self._after_units(units)[2] if units else 0.0
            if saved > 0:
                offers.append((sum(self._importance[unit.root] for unit in units) / saved, number))
        channels = min(offers, default=None)
        blocks = None if self._prices is None else self._prices.cheapest(self._saved_by_block)
        if channels is None and blocks is None:
            return None
        if blocks is not None and (channels is None or blocks[0] <= channels[0]):
            return self._remove_block(blocks[1])
        assert channels is not None
        return self._narrow(channels[1])

    def _narrow(self, number: int) -> _Step:
        state = self._state
        units = _between(self._orders[number], self._levels[number], state.taken[number])
        state.sizes, state.seconds, state.total = self._after_units(units)
        state.alive[[unit.root for unit in units]] = False
        state.taken[number] += len(units)
        return _Step(units=tuple(units), block=None, share=state.total / self._start)

    def _remove_block(self, block: Block) -> _Step:
        assert self._prices is not None
        state = self._state
        state.running, state.sizes, state.seconds, state.total = self._without(block)
        self._prices.remove(block)
        return _Step(units=(), block=block, share=state.total / self._start)

    def _after_units(self, units: Sequence[Unit]) -> tuple[list[LayerSize], list[float], float]:
        state, roots = self._state, [unit.root for unit in units]
        alive = state.alive.copy()
        alive[roots] = False
        sizes, seconds = list(state.sizes), list(state.seconds)
        for index in self._layers.touched_by(roots):
            if self._layers.node(index) in state.running:
                sizes[index] = self._layers.size(index, alive)
                seconds[index] = self._seconds(index, sizes[index])
        return sizes, seconds, self._whole(seconds, sizes)

    def _saved_by_block(self, block: Block) -> float:
        return self._state.total - self._without(block)[3]

    def _without(self, block: Block) -> tuple[set[str], list[LayerSize], list[float], float]:
        assert self._prices is not None
        state = self._state
        running = running_without(self._graph, (*self._prices.removed, block))
        nothing = LayerSize(macs=0.0, elements=0.0)
        there = [self._layers.node(index) in running for index in range(len(self._layers))]
        sizes = [size if here else nothing for size, here in zip(state.sizes, there, strict=True)]
        seconds = [time if here else 0.0 for time, here in zip(state.seconds, there, strict=True)]
        return running, sizes, seconds, self._whole(seconds, sizes)


def search(
    path: Path, measure: Callable[[int], float], asked: float, *, bar: ProgressTask
) -> tuple[int, tuple[Trial, ...]]:
    """Finds how many steps of a path leave the time that is asked for, by timing a few of the networks on it.

    Args:
        path: Of ever smaller networks.
        measure: Builds the network after some steps, and returns its share of the given network's time.
        asked: The share that is wanted.
        bar: Advanced once per engine.

    Returns:
        The number of steps whose measured time is closest, and what was timed, the chosen one last.
    """
    found: dict[int, Trial] = {}
    aim = asked
    for _ in range(_TRIALS):
        count = path.upto(aim)
        if count in found:
            count = _beside(path, found, asked)
        if count == 0 or count in found:
            break
        trial = Trial(predicted=path.share(count), measured=measure(count))
        bar.advance()
        found[count] = trial
        if abs(trial.measured / asked - 1) <= CLOSE:
            break
        if trial.measured > asked and path.ends(count):
            break
        aim = _aim(found, asked)
    if not found:
        return 0, ()
    chosen = min(found, key=lambda item: abs(np.log(found[item].measured / asked)))
    others = tuple(trial for count, trial in found.items() if count != chosen)
    return chosen, (*others, found[chosen])


def _aim(found: dict[int, Trial], asked: float) -> float:
    """The predicted share at which the measured one would be what is asked for, by the nearest trials on both sides."""
    slower = [trial for trial in found.values() if trial.measured > asked]
    faster = [trial for trial in found.values() if trial.measured <= asked]
    if slower and faster:
        high, low = min(slower, key=lambda item: item.measured), max(faster, key=lambda item: item.measured)
        part = (asked - low.measured) / (high.measured - low.measured)
        return low.predicted + part * (high.predicted - low.predicted)
    nearest = min(found.values(), key=lambda item: abs(item.measured - asked))
    return nearest.predicted * asked / nearest.measured


def _beside(path: Path, found: dict[int, Trial], asked: float) -> int:
    """The step next to the closest trial, towards what is asked for."""
    closest = min(found, key=lambda item: abs(found[item].measured - asked))
    if found[closest].measured <= asked:
        return closest - 1
    return closest if path.ends(closest) else closest + 1


def _between(order: Sequence[Unit], steps: Sequence[int], taken: int) -> list[Unit]:
    after = next((level for level in steps if level > taken), taken)
    return list(order[taken:after])
