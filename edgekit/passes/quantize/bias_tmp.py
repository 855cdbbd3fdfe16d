"""Calibration: streams images through the float graph once and lets observers watch the tensors of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from edgekit.passes.aten import LINEAR, is_call
from edgekit.progress import Progress

__all__ = ["Batches", "mean_weight_error"]

Batches = Callable[[], Iterator[tuple[torch.Tensor, ...]]]
"""Gives a fresh iterator over batches; each is one tensor per graph input, in the graph's input dtype and layout."""


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
