"""Calibration: streams images through the float graph once and lets observers watch the tensors of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.errors import DataError, UserError
from edgekit.passes.quantize.observers import Observer
from edgekit.passes.quantize.policy import Plan, Site
from edgekit.passes.samples import Batch, CalibrationData
from edgekit.passes.stream import Streamer
from edgekit.progress import Progress

__all__ = ["Observed", "observe"]

# Halves of one set of images differ by a few per cent, seldom by half; never by this factor.
_LONE = 16.0
# Arithmetic on these is exact, and a mask may hold infinities by right.
_NOT_COMPUTED = frozenset({"placeholder", "get_attr", "output"})


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was seen of one tensor, or of tensors that share a grid.

    Attributes:
        whole: Over all images.
        halves: Over the even and the odd batches, to see whether ranges have settled.
    """

    whole: Observer
    halves: tuple[Observer, Observer]

    def credible(self) -> tuple[float, float] | None:
        """Returns the range without values that only one half of the images has, far beyond all of the other half's.

        A value at many times of what the other half ever shows is a broken image or a glitch, not a property of the
        network: whatever is one shows in both halves. Squared errors are no guard against it: one such value outweighs
        all others.

        Returns:
            None where there is no such value, or one half saw nothing.
        """
        if any(int(half.histogram.total.sum()) == 0 for half in self.halves):
            return None
        ends = [half.observed for half in self.halves]
        low = _without_lone(*(-float(item[0]) for item in ends))
        high = _without_lone(*(float(item[1]) for item in ends))
        if low is None and high is None:
            return None
        whole = tuple(float(item) for item in self.whole.observed)
        return (whole[0] if low is None else -low, whole[1] if high is None else high)


def _without_lone(first: float, second: float) -> float | None:
    """The smaller of two magnitudes where the other is beyond all proportion; None where they are of one kind."""
    small, large = sorted((first, second))
    return small if small > 0 and large > _LONE * small else None


def observe(
    graph: fx.GraphModule,
    plan: Plan,
    data: CalibrationData,
    *,
    observer: Callable[[], Observer],
    progress: Progress,
) -> dict[Site, Observed]:
    """Runs every image once and returns what was seen of each site; tied sites share theirs.

    Memory does not grow with the number of images.

    Args:
        graph: The folded float graph.
        plan: Where to look.
        data: The calibration images.
        observer: Makes a fresh observer.
        progress: Where progress is shown.

    Raises:
        UserError: There is no image at all.
        DataError: A tensor holds NaN or infinity; names the image and the first such tensor.
    """
    halves: dict[Site, tuple[Observer, Observer]] = {}
    for group in plan.groups:
        halves.update(dict.fromkeys(group, (observer(), observer())))
    # One node may be two sites (a convolution and a linear read it): both observers see it.
    watched: dict[fx.Node, list[tuple[Observer, Observer]]] = {}
    for site, pair in halves.items():
        watched.setdefault(site.node, []).append(pair)
    watcher = _Watcher(graph, watched)
    seen = 0
    with progress.task("calibrating", data.count) as bar:
        for number, batch in enumerate(data.batches()):
            watcher.half = number % 2
            try:
                watcher.stream(batch)
            except DataError:
                raise _located(graph, batch, data, first=seen) from None
            seen += len(batch[0])
            bar.advance(len(batch[0]))
    if seen == 0:
        raise UserError("calibration: no image could be used", hint="give a folder with readable images (--data)")
    wholes: dict[int, Observer] = {}
    for first, second in halves.values():
        if id(first) not in wholes:
            wholes[id(first)] = observer()
            wholes[id(first)].merge(first)
            wholes[id(first)].merge(second)
    return {site: Observed(whole=wholes[id(pair[0])], halves=pair) for site, pair in halves.items()}


class _Watcher(Streamer):
    def __init__(self, graph: fx.GraphModule, watched: Mapping[fx.Node, list[tuple[Observer, Observer]]]) -> None:
        super().__init__(graph)
        self.watched = watched
        self.half = 0

    def saw(self, node: fx.Node, result: Any) -> None:
        for pair in self.watched.get(node, ()):
            pair[self.half].update(result)


def _located(graph: fx.GraphModule, batch: Batch, data: CalibrationData, *, first: int) -> DataError:
    """Runs a batch again, image by image where the graph allows it, and names what is not a number."""
    size = len(batch[0])
    for index in range(size):
        finder = _Finder(graph)
        try:
            with torch.no_grad():
                finder.run(*(tensor[index : index + 1] for tensor in batch))
        except (RuntimeError, ValueError):  # the graph takes only whole batches
            break
        if finder.found is not None:
            return _not_a_number(finder.found, data.name_of(first + index))
    finder = _Finder(graph)
    with torch.no_grad():
        finder.run(*batch)
    names = data.name_of(first) if size == 1 else f"{data.name_of(first)} or one of the {size - 1} after it"
    return _not_a_number(finder.found if finder.found is not None else "unknown", names)


def _not_a_number(node: str, image: str) -> DataError:
    return DataError(
        f"calibration: {image}: tensor '{node}' holds NaN or infinity, the first of the network to do so",
        hint="check the model's weights, the image, and the [input] scale, mean and std of the task spec",
    )


class _Finder(fx.Interpreter):
    """Remembers the first computed tensor with a value that is not finite; inputs count where they are float."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: str | None = None

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if self.found is None and isinstance(result, torch.Tensor) and result.is_floating_point():
            constant = not node.all_input_nodes or all(item.op == "get_attr" for item in node.all_input_nodes)
            suspect = node.op == "placeholder" or (node.op not in _NOT_COMPUTED and not constant)
            if suspect and not bool(result.isfinite().all()):
                self.found = node.name
        return result
