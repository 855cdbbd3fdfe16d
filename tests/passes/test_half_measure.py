"""What half precision hurts, node by node: by measurement, and no more than that."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.frontend import load_program
from edgekit.passes.aten import operator_name, origin_name
from edgekit.passes.half import LARGEST, NodeError, measure_half
from edgekit.passes.half.arithmetic import computed_in_half
from edgekit.program import Program
from edgekit.progress import ProgressTask
from tests.half_networks import HURT, folded_module, hurt
from tests.networks import NETWORKS, folded, pictures
from tests.passes.test_quantize import INT8, quantized

LIMIT = 0.01


def measured(program: Program, count: int = 4, limit: float = LIMIT) -> dict[str, NodeError]:
    return {item.node: item for item in measure_half(program, [(pictures(count),)], limit=limit)}


def marked(found: dict[str, NodeError]) -> tuple[str, ...]:
    """Layers by name, others by operator."""
    names = [item.layer if item.operator in ("conv2d", "linear") else item.operator for item in found.values()]
    return tuple(name for name, item in zip(names, found.values(), strict=True) if item.cause)


@pytest.mark.parametrize("name", HURT)
def test_what_half_hurts_is_marked_and_nothing_else(name: str) -> None:
    assert marked(measured(hurt(name))) == HURT[name][1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_half_suits_has_nothing_marked(name: str) -> None:
    for program in (folded(name), quantized(folded(name), INT8)):
        found = measured(program)
        assert marked(found) == ()
        assert max(item.error for item in found.values()) < 2**-9


@pytest.mark.parametrize("name", ["large-norm", "sum-pool", "attention"])
def test_the_same_program_and_images_give_the_same_records(name: str) -> None:
    program = hurt(name) if name in HURT else folded(name)
    assert measured(program) == measured(program)


def test_reasons_say_what_reached_which_value() -> None:
    norm = measured(hurt("large-norm"))["layer_norm"]
    assert norm.cause == "overflow"
    assert norm.peak > LARGEST
    assert norm.why.startswith("overflow: |x| reached ")
    assert "(its sum of squares), float16 holds 65504" in norm.why
    difference = next(item for item in measured(hurt("cancelling")).values() if item.operator == "sub")
    assert difference.why == f"error: in float16 its result is off by {100 * difference.error:.2g} % (relative L2)"


def test_half_of_float16_s_range_is_left_to_images_that_were_not_measured() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.register_buffer("factor", torch.tensor(factor))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    found = {}
    for factor in (30e3, 40e3):
        program = load_program(Scaled(factor), task=None, example_inputs=(torch.ones(2, 4),))
        (found[factor],) = measure_half(program, [(torch.ones(2, 4),)], limit=LIMIT)
    assert found[30e3].cause == ""
    assert "reached 4e+04 (its result), too close to float16's 65504" in found[40e3].why


def test_an_infinite_mask_is_no_overflow() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.masked_fill(x < 0, -math.inf), -1)

    program = load_program(Masked(), task=None, example_inputs=(torch.randn(2, 8),))
    found = measure_half(program, [(torch.randn(4, 8).abs() + torch.tensor([0.0] * 7 + [-9.0]),)], limit=LIMIT)
    assert [item.cause for item in found] == [""] * len(found)


def test_batches_add_up() -> None:
    class Counting:
        count = 0

        def advance(self, count: int = 1) -> None:
            self.count += count

    program, bar = hurt("sum-pool"), Counting()
    images = pictures(6)
    dark = (images[:2] // 64,)
    typed: ProgressTask = bar
    found = {item.node: item for item in measure_half(program, [dark, (images[2:],)], limit=LIMIT, bar=typed)}
    assert bar.count == 2
    alone = [measure_half(program, [batch], limit=LIMIT) for batch in (dark, (images[2:],))]
    peaks = [item.peak for items in alone for item in items if item.node == "sum_1"]
    assert peaks[0] != peaks[1]
    assert found["sum_1"].peak == max(peaks)


def test_each_node_is_computed_twice_whatever_the_size_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is that of two passes: a network of a hundred layers has a hundred nodes computed once more, in half."""
    calls = 0

    def counted(*args: object) -> object:
        nonlocal calls
        calls += 1
        return computed_in_half(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("edgekit.passes.half.measure.computed_in_half", counted)
    layers = [item for _ in range(50) for item in (nn.Linear(8, 8), nn.Tanh())]
    program = load_program(nn.Sequential(*layers), task=None, example_inputs=(torch.randn(2, 8),))
    found = measure_half(program, [(torch.randn(4, 8),)] * 2, limit=LIMIT)
    assert len(found) == 100
    assert calls == 2 * 100


class Norms(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(6),
        nn.LayerNorm((6, 6), elementwise_affine=False),
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8, affine=True),
        nn.InstanceNorm2d(8),
        nn.RMSNorm(6, eps=1e-5),
    ],
    ids=repr,
)
def test_a_norm_in_half_is_the_norm_up_to_rounding(norm: nn.Module) -> None:
    torch.manual_seed(0)
    program = load_program(Norms(norm).eval(), task=None, example_inputs=(torch.randn(2, 8, 6, 6),))
    (found,) = measure_half(program, [(torch.randn(2, 8, 6, 6) * 3 + 1,)], limit=LIMIT)
    assert 1e-5 < found.error < 2e-3
    assert found.cause == ""
    assert found.peak_of == "its sum of squares"


@pytest.mark.parametrize("mask", ["none", "causal", "boolean", "added"])
def test_attention_in_half_is_attention_up_to_rounding(mask: str) -> None:
    class Attends(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given = None
            if mask == "boolean":
                given = torch.ones(5, 5, dtype=torch.bool).tril(1)
            elif mask == "added":
                given = torch.arange(5.0).expand(5, 5)
            return nn.functional.scaled_dot_product_attention(x, 2 * x, x, given, is_causal=mask == "causal")

    program = load_program(Attends(), task=None, example_inputs=(torch.randn(2, 3, 5, 8),))
    found = {item.operator: item for item in measure_half(program, [(torch.randn(2, 3, 5, 8),)], limit=LIMIT)}
    assert 1e-5 < found["scaled_dot_product_attention"].error < 5e-3
    program = load_program(Attends(), task=None, example_inputs=(torch.randn(2, 3, 5, 8),))
    found = {item.operator: item for item in measure_half(program, [(300 * torch.randn(2, 3, 5, 8),)], limit=LIMIT)}
    attention = found["scaled_dot_product_attention"]
    assert attention.cause == "overflow"
    assert attention.peak_of == "a query times a key"


def test_a_recurrent_layer_is_measured_with_its_state_in_half() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.LSTM(8, 4, bidirectional=True, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cells(x)[0]

    torch.manual_seed(0)
    program = load_program(Recurrent().eval(), task=None, example_inputs=(torch.randn(2, 5, 8),))
    found = {item.operator: item for item in measure_half(program, [(torch.randn(2, 5, 8),)], limit=LIMIT)}
    assert found["lstm"].layer == "cells"
    assert 1e-5 < found["lstm"].error < 5e-3


def test_nodes_are_called_by_the_module_that_they_come_from() -> None:
    program = folded_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, 4)))
    names = {operator_name(node): origin_name(node) for node in program.graph.graph.nodes if node.op == "call_function"}
    assert (names["conv2d"], names["layer_norm"], names["linear"]) == ("0", "2", "3")
    assert names["mul"] == "mul_tensor"
