"""A learned step: exact at the start, positive for ever, and as fast as LSQ's."""

from __future__ import annotations

import pytest
import torch

from edgekit.passes.qat.step import learned_step, step_gain
from edgekit.passes.quantize.grids import SMALLEST_STEP
from edgekit.passes.quantize.ops import qdq


def test_no_change_is_exactly_the_step_that_was_given() -> None:
    start = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-5, 0).repeat(200)
    assert torch.equal(learned_step(start, torch.zeros(1000), torch.ones(1000)), start)


def test_a_step_stays_positive_whatever_is_learned() -> None:
    start = torch.tensor([0.1, 1e-7])
    assert learned_step(start, torch.full((2,), -100.0), torch.ones(2)).tolist() == [pytest.approx(SMALLEST_STEP)] * 2


def test_gradient_is_that_of_the_formula_times_the_gain() -> None:
    start, gain = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    change = torch.tensor([0.2, -0.3], dtype=torch.float64, requires_grad=True)
    learned_step(start, change, gain).sum().backward()
    quotient = (start * (change + 1e-6).exp() - start * (change - 1e-6).exp()).detach() / 2e-6
    assert change.grad is not None
    assert torch.allclose(change.grad, quotient * gain)


def test_plain_descent_changes_a_step_by_the_share_that_lsq_changes_it_by() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    wanted = torch.randn(500, generator=torch.Generator().manual_seed(1))
    arguments = torch.tensor(0, dtype=torch.int8), -1, -127, 127
    start = torch.tensor(0.01)

    step = start.clone().requires_grad_()
    (qdq(x, step, *arguments) * wanted).sum().backward()
    assert step.grad is not None
    share_of_lsq = step.grad / (500 * 127) ** 0.5 / start

    change = torch.tensor(0.0, requires_grad=True)
    (
        qdq(x, learned_step(start, change, step_gain(start, values=500, levels=127)), *arguments) * wanted
    ).sum().backward()
    assert change.grad is not None
    assert float(change.grad) == pytest.approx(float(share_of_lsq), rel=1e-5)
