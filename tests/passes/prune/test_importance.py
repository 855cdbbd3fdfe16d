"""Ranks of channels, each against what its formula says."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgekit.frontend import load_program
from edgekit.passes.prune.arithmetic import Arithmetic
from edgekit.passes.prune.flow import trace
from edgekit.passes.prune.importance import by_batch_norm, by_magnitude, by_taylor
from edgekit.passes.prune.plan import own_class
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.units import find_groups
from edgekit.program import Program


def two_layers() -> Program:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    nn.init.uniform_(module[1].weight, 0.1, 2.0)  # type: ignore[arg-type]
    return load_program(module.eval(), task=None, example_inputs=(torch.randn(2, 3, 8, 8),))


def images() -> Iterator[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        yield (torch.randn(4, 3, 8, 8, generator=generator),)


def test_magnitude_is_the_norm_of_the_filter_over_its_layers_mean() -> None:
    program = two_layers()
    flow = trace(program, TABLE)
    groups = find_groups(flow)
    norms = dict(program.graph.named_parameters())["0.weight"].detach().flatten(1).norm(dim=1)
    found = [by_magnitude(flow, groups)[unit.root] for unit in groups[0].units]
    assert torch.allclose(torch.tensor(found), norms / norms.mean(), rtol=1e-5)


def test_batch_norm_importance_is_its_scale() -> None:
    program = two_layers()
    flow = trace(program, TABLE)
    groups = find_groups(flow)
    scale = dict(program.graph.named_parameters())["1.weight"].detach().abs()
    found = [by_batch_norm(flow, groups)[unit.root] for unit in groups[0].units]
    assert torch.allclose(torch.tensor(found), scale / scale.mean(), rtol=1e-5)


def test_taylor_importance_is_what_the_loss_would_lose() -> None:
    """First order: the change of the loss when a filter is scaled by 1 - e, over e, squared, summed over batches."""
    program = two_layers()
    flow = trace(program, TABLE)
    groups = find_groups(flow)
    # In float64, so that the difference quotient has digits.
    program.graph.double()
    batches = [tuple(item.double() for item in batch) for batch in images()]
    found = by_taylor(flow, groups, batches, own_class)
    weight = dict(program.graph.named_parameters())["0.weight"]
    step = 1e-6
    for place, unit in enumerate(groups[0].units):
        expected = 0.0
        for batch in batches:
            with torch.no_grad():
                classes = program.graph(*batch)[0].argmax(dim=1)
                losses = []
                for scale in (1 + step, 1 - step):
                    kept = weight[place].clone()
                    weight[place] *= scale
                    losses.append(float(nn.functional.cross_entropy(program.graph(*batch)[0], classes)))
                    weight[place] = kept
            expected += ((losses[0] - losses[1]) / (2 * step)) ** 2
        assert abs(found[unit.root] - expected) <= 1e-4 * max(expected, 1e-8)
    assert all(parameter.grad is None for parameter in program.graph.parameters())


def test_windows_are_counted_once_for_each_image() -> None:
    """A batch that is merged with windows, as in Swin, is no factor of the arithmetic."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.permute(0, 2, 3, 1).reshape(-1, 4, 6)
            return self.linear(rows).reshape(x.shape[0], -1)

    program = load_program(Windows().eval(), task=None, example_inputs=(torch.randn(2, 6, 8, 8),))
    assert Arithmetic(trace(program, TABLE)).total == 64 * 6 * 4


def test_multiply_accumulates_are_counted_by_hand() -> None:
    flow = trace(two_layers(), TABLE)
    arithmetic = Arithmetic(flow)
    assert arithmetic.total == 64 * (3 * 6 * 9) + 64 * (6 * 4)
    unit = find_groups(flow)[0].units[0]
    assert arithmetic.left([unit.root]) == 64 * (3 * 5 * 9) + 64 * (5 * 4)
