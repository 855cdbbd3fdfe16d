"""Networks put together at random from blocks, pruned by random shares: the check holds, and ONNX Runtime agrees."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.prune import Prune, PruneOptions
from edgekit.passes.prune.choose import keep_steps
from edgekit.passes.prune.flow import trace
from edgekit.passes.prune.oracle import TOLERANCE
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.units import find_groups
from edgekit.progress import SilentProgress
from edgekit.targets import Portable

CONTEXT = PassContext(progress=SilentProgress())
KINDS = ("conv", "grouped", "depthwise", "residual", "join", "halves", "gate", "norm", "shrink", "shuffle")


class Drawn(nn.Module):
    """A chain of blocks; each knows how many channels come in."""

    def __init__(self, kinds: list[str], widths: list[int]) -> None:
        super().__init__()
        self.kinds = kinds
        self.layers = nn.ModuleList()
        channels = 8
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        for kind, width in zip(kinds, widths, strict=True):
            made, channels = self._made(kind, channels, width)
            self.layers.append(made)
        self.head = nn.Linear(channels, 3)

    @staticmethod
    def _made(kind: str, channels: int, width: int) -> tuple[nn.Module, int]:
        if kind == "conv":
            return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)), width
        if kind == "grouped":
            return nn.Conv2d(channels, width, 3, padding=1, groups=2 if width % 8 else 4), width
        if kind == "depthwise":
            return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), channels
        if kind == "residual":
            return nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, channels, 1)), channels
        if kind == "join":
            return nn.Conv2d(channels, width, 1), channels + width
        if kind == "halves":
            return nn.Conv2d(channels // 2, channels // 2, 3, padding=1), channels
        if kind == "gate":
            return nn.Conv2d(channels, channels, 1), channels
        if kind == "norm":
            return nn.GroupNorm(4, channels), channels
        return nn.Identity(), channels

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            if kind == "residual":
                x = x + layer(x)
            elif kind == "join":
                x = torch.cat([x, F.silu(layer(x))], 1)
            elif kind == "halves":
                one, two = x.chunk(2, 1)
                x = torch.cat([layer(two), one], 1)
            elif kind == "gate":
                x = x * torch.sigmoid(layer(F.adaptive_avg_pool2d(x, 1)))
            elif kind == "shrink":
                x = F.avg_pool2d(x, 3, 1, 1)
            elif kind == "shuffle":
                size, channels, height, width = x.shape
                x = x.view(size, 4, channels // 4, height, width).transpose(1, 2).flatten(1, 2)
            else:
                x = F.relu(layer(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    blocks=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([8, 12, 16])), min_size=1, max_size=6),
    keep=st.floats(0.2, 0.9),
    align=st.sampled_from([1, 2, 4]),
    allocation=st.sampled_from(["uniform", "global"]),
)
def test_random_networks_are_pruned_exactly(
    blocks: list[tuple[str, int]], keep: float, align: int, allocation: str
) -> None:
    torch.manual_seed(0)
    module = Drawn([kind for kind, _ in blocks], [width for _, width in blocks]).eval()
    program = load_program(module, task=None, example_inputs=(torch.randn(2, 3, 8, 8),))
    options = PruneOptions(keep=keep, align=align, allocation=allocation)
    flow = trace(program, TABLE)
    if all(len(group.units) <= keep_steps(group, align) for group in find_groups(flow)):
        with pytest.raises(StageError, match="found no channels"):  # no width is larger than the alignment
            run_passes(program, [Prune(options=options)], CONTEXT)
        return
    pruned = run_passes(program, [Prune(options=options)], CONTEXT)
    assert pruned.history[-1].details["oracle"] <= TOLERANCE
    graph = export_portable(pruned, portable=Portable(), precision="fp32", dynamic_batch=False)
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, 8, 8)
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    expected = pruned.run(image)[0].numpy()
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
