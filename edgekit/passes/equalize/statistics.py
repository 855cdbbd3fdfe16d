"""What is remembered of a tensor's channels while images stream past, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import fx

from edgekit.passes.samples import Batch
from edgekit.passes.stream import Streamer
from edgekit.progress import Progress

__all__ = ["ChannelStatistics", "Seen", "observe_channels"]

# Values kept of one tensor, all channels and images together: a quarter of a MiB for each half of the images.
_KEPT = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A tensor's channels over some images.

    Attributes:
        low, high: Exact smallest and largest value of each channel, (channels,).
        sample: Values at evenly spaced positions, (positions, channels).
    """

    low: torch.Tensor
    high: torch.Tensor
    sample: torch.Tensor

    @property
    def peak(self) -> torch.Tensor:
        """Largest magnitude of each channel, (channels,)."""
        return torch.maximum(self.high, -self.low)

    @property
    def finite(self) -> bool:
        """Whether no NaN or infinity was seen."""
        return bool(torch.isfinite(self.low).all() and torch.isfinite(self.high).all())

    def joined(self, other: Seen) -> Seen:
        """Returns what was seen over both sets of images."""
        return Seen(
            low=torch.minimum(self.low, other.low),
            high=torch.maximum(self.high, other.high),
            sample=torch.cat([self.sample, other.sample]),
        )


class ChannelStatistics:
    """Collects what is seen of one tensor while images stream past, for each half of the images apart.

    Args:
        axis: The channels' dimension, 1 or -1.
        images: About how many images will be seen, so that the sample covers all of them.
    """

    def __init__(self, *, axis: int, images: int) -> None:
        self._axis = axis
        self._images = images
        self._halves: list[list[Seen]] = [[], []]
        self._turn = 0

    def update(self, values: torch.Tensor) -> None:
        """Adds one batch: (images, channels, ...) for axis 1, (..., channels) for axis -1; float32."""
        if values.ndim == 1:
            values = values[None]
        # Image by image first: over images and positions at once is slow where channels come last in memory.
        positions = [dim for dim in range(1, values.ndim) if dim != self._axis % values.ndim]
        low, high = (values.amin(positions), values.amax(positions)) if positions else (values, values)
        if len(values) == 1:
            self._add(self._turn, values, low, high)
            self._turn = 1 - self._turn
            return
        for half in range(2):
            self._add(half, values[half::2], low[half::2], high[half::2])

    def halves(self) -> tuple[Seen, Seen] | None:
        """Returns what was seen on either half of the images, the same twice for one image; None without any."""
        first, second = (_joined(parts) for parts in self._halves)
        if first is None:
            return None
        return first, first if second is None else second

    def _add(self, half: int, values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
        """Adds some images' values; ``low`` and ``high`` are those of each channel of each image."""
        # (rows, channels, positions), whatever it was.
        shaped = values.flatten(2) if self._axis == 1 and values.ndim > 2 else values.reshape(-1, values.shape[-1], 1)
        rows, channels, positions = shaped.shape
        wanted = max(1, math.ceil(_KEPT / channels / self._images * len(values)))
        # An odd stride does not lock onto rows of pixels, whose sizes are mostly even.
        stride = (positions * rows // wanted) | 1
        drawn = shaped[:, :, ::stride] if positions > 1 else shaped[::stride]
        sample = drawn.movedim(1, -1).reshape(-1, channels).clone()
        self._halves[half].append(Seen(low=low.amin(0), high=high.amax(0), sample=sample))


def _joined(parts: list[Seen]) -> Seen | None:
    return reduce(Seen.joined, parts) if parts else None


def observe_channels(
    graph: fx.GraphModule,
    wanted: Mapping[fx.Node, int],
    batches: Iterator[Batch],
    *,
    limit: int,
    progress: Progress,
) -> dict[fx.Node, ChannelStatistics]:
    """Streams images once and returns the statistics of each wanted tensor.

    Args:
        graph: The float graph.
        wanted: For each node its channels' dimension, 1 or -1.
        batches: The images.
        limit: How many they are at most.
        progress: Where progress is shown.
    """
    found = {node: ChannelStatistics(axis=axis, images=limit) for node, axis in wanted.items()}

    class Watcher(Streamer):
        def saw(self, node: fx.Node, result: Any) -> None:
            if node in found:
                found[node].update(result)

    watcher = Watcher(graph, last=[node for node in graph.graph.nodes if node in found][-1])
    with progress.task("ranges of channels", limit) as bar:
        for batch in batches:
            watcher.stream(batch)
            bar.advance(len(batch[0]))
    return found
