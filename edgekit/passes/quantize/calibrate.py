"""Calibration: streams images through the float graph once and lets observers watch the tensors of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from edgekit.errors import DataError
from edgekit.passes.aten import LINEAR, is_call
from edgekit.passes.quantize.observers import HistogramObserver
from edgekit.passes.quantize.policy import Plan, Site
from edgekit.progress import Progress

__all__ = ["Batches", "mean_weight_error", "observe"]

Batches = Callable[[], Iterator[tuple[torch.Tensor, ...]]]
"""Gives a fresh iterator over batches; each is one tensor per graph input, in the graph's input dtype and layout."""


def observe(
    graph: fx.GraphModule, plan: Plan, batches: Batches, *, count: int, progress: Progress
) -> dict[Site, HistogramObserver]:
    """Runs every batch once and returns one observer per site; tied sites share theirs.

    Memory does not grow with ``count``.

    Args:
        graph: The folded float graph.
        plan: Where to look.
        batches: The calibration images.
        count: How many images ``batches`` gives, for the progress bar.
        progress: Where progress is shown.

    Raises:
        DataError: There is no image at all, or a tensor holds NaN or infinity.
    """
    observers: dict[Site, HistogramObserver] = {}
    for group in plan.groups:
        shared = HistogramObserver()
        observers.update(dict.fromkeys(group, shared))
    # One node may be two sites (a convolution and a linear read it): both observers see it.
    watched: dict[fx.Node, list[HistogramObserver]] = {}
    for site, observer in observers.items():
        watched.setdefault(site.node, []).append(observer)

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            result = super().run_node(node)
            for observer in watched.get(node, ()):
                observer.update(result, where=node.name)
            return result

    seen = 0
    with torch.no_grad(), progress.task("calibrating", count) as bar:
        for batch in batches():
            Watcher(graph).run(*batch)
            seen += len(batch[0])
            bar.advance(len(batch[0]))
    if seen == 0:
        raise DataError("calibration: no image could be used", hint="give a folder with readable images (--data)")
    return observers


def mean_weight_error(
    graph: fx.GraphModule, errors: dict[fx.Node, torch.Tensor], batches: Batches, *, limit: int, progress: Progress
) -> dict[fx.Node, torch.Tensor]:
    """Estimates, per output channel, what rounding a weight adds to the mean of its layer's output.

    That mean is ``E[conv(x, Wq - W)]`` over images and positions, borders included, on the float graph's own
    activations.

    Args:
        graph: The folded float graph.
        errors: For each convolution or linear its weight error ``Wq - W``, in the weight's shape.
        batches: Images.
        limit: At most this many images are used.
        progress: Where progress is shown.

    Returns:
        For each layer a float64 vector of shape (output channels,).

    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2.
    """
    total: dict[fx.Node, torch.Tensor] = {}
    used = 0

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            if node in errors:
                arguments, keywords = self.fetch_args_kwargs_from_env(node)
                call = [*arguments]
                call[1] = errors[node]
                if len(call) > 2:
                    call[2] = None
                keywords = {key: value for key, value in keywords.items() if key != "bias"}
                difference = node.target(*call, **keywords)  # type: ignore[operator]
                axis = difference.ndim - 1 if is_call(node, LINEAR) else 1
                mean = difference.double().transpose(0, axis).flatten(1).mean(1)
                total[node] = total.get(node, torch.zeros_like(mean)) + mean * len(difference)
            return super().run_node(node)

    with torch.no_grad(), progress.task("bias correction", limit) as bar:
        for batch in batches():
            batch = tuple(tensor[: limit - used] for tensor in batch)
            Watcher(graph).run(*batch)
            used += len(batch[0])
            bar.advance(len(batch[0]))
            if used >= limit:
                break
    # A layer behind a reshape may see another leading dimension than the batch: normalise by what was summed per image.
    return {node: value / used for node, value in total.items()}
