from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.passes import run_passes
from edgekit.passes.aten import is_call, read_tensor
from edgekit.passes.equalize import DropImpliedBounds
from edgekit.passes.quantize import Quantize
from edgekit.passes.quantize.returned import ReturnToFloat
from tests.equalize_networks import (
    DATA,
    RECIPE,
    UINT8,
    UNSEEN,
    built,
    equalizing,
    loaded,
    operators,
    record_of,
    saturating,
    sqnr_db,
)
from tests.networks import CONTEXT

_A = torch.ops.aten
MINIMUM = frozenset({_A.minimum.default})


def test_relu6_is_exact_in_float_and_costs_nothing_in_int8() -> None:
    item = saturating()
    result = run_passes(item, [equalizing()], CONTEXT)
    assert record_of(result, "equalize-channels").changed >= 2
    assert operators(result).count(_A.minimum.default) >= 2
    assert sqnr_db(item.run(UNSEEN)[0], result.run(UNSEEN)[0]) > 100
    bounded = run_passes(result, [Quantize(rules=UINT8, recipe=RECIPE, data=DATA)], CONTEXT)
    dropped = run_passes(bounded, [DropImpliedBounds()], CONTEXT)
    assert _A.minimum.default not in operators(dropped)
    # Every kernel that the engine runs is one that it runs without equalization.
    plain = run_passes(item, [Quantize(rules=UINT8, recipe=RECIPE, data=DATA)], CONTEXT)
    relu6_as_relu = [_A.relu.default if target is _A.relu6.default else target for target in operators(plain)]
    assert [_A.relu.default if target is _A.relu6.default else target for target in operators(dropped)] == relu6_as_relu


def test_bounds_that_a_grid_implies_go_without_any_change() -> None:
    result = run_passes(saturating(), [equalizing()], CONTEXT)
    bounded = run_passes(result, [Quantize(rules=UINT8, recipe=RECIPE, data=DATA)], CONTEXT).copied()
    pairs = [node for node in bounded.graph.graph.nodes if is_call(node.args[0] if node.args else None, MINIMUM)]
    for pair in pairs:
        bounds = read_tensor(bounded.graph, pair.args[0].args[1])
        with torch.no_grad():
            read_tensor(bounded.graph, pair.args[1]).fill_(float(bounds.min()) / 255)
    dropped = run_passes(bounded, [DropImpliedBounds()], CONTEXT)
    assert "(0 grids made to end there)" in dropped.history[-1].summary
    assert torch.equal(bounded.run(UNSEEN)[0], dropped.run(UNSEEN)[0])


def test_a_grid_beyond_the_smallest_bound_is_made_to_end_there() -> None:
    result = run_passes(saturating(), [equalizing()], CONTEXT)
    bounded = run_passes(result, [Quantize(rules=UINT8, recipe=RECIPE, data=DATA)], CONTEXT).copied()
    pair = next(node for node in bounded.graph.graph.nodes if is_call(node.args[0] if node.args else None, MINIMUM))
    smallest = float(read_tensor(bounded.graph, pair.args[0].args[1]).min())
    with torch.no_grad():
        read_tensor(bounded.graph, pair.args[1]).fill_(2 * smallest / 255)
    dropped = run_passes(bounded, [DropImpliedBounds()], CONTEXT)
    assert float(read_tensor(dropped.graph, pair.args[1])) == pytest.approx(smallest / 255)


def test_bounds_in_float_become_two_factors_and_one_clamp() -> None:
    result = run_passes(saturating(), [equalizing()], CONTEXT)
    rewritten = run_passes(result, [DropImpliedBounds()], CONTEXT)
    assert _A.minimum.default not in operators(rewritten)
    assert sqnr_db(result.run(UNSEEN)[0], rewritten.run(UNSEEN)[0]) > 100


def test_a_minimum_of_the_network_itself_is_not_touched() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
            self.register_buffer("limit", torch.full((1, 8, 1, 1), 0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.minimum(F.relu(self.one(x)), self.limit)).mean((2, 3))

    item = loaded(built(Own()))
    assert operators(run_passes(item, [DropImpliedBounds()], CONTEXT)) == operators(item)


def test_a_layer_returned_to_float_still_reads_bounded_channels() -> None:
    floating = run_passes(saturating(), [equalizing()], CONTEXT)
    returned = run_passes(
        floating,
        [
            Quantize(rules=UINT8, recipe=RECIPE, data=DATA),
            ReturnToFloat(layers={"deeper": "it hurts"}, floating=floating),
        ],
        CONTEXT,
    )
    result = run_passes(returned, [DropImpliedBounds()], CONTEXT)
    assert "1 by a clamp between two factors" in result.history[-1].summary
    assert _A.minimum.default not in operators(result)
    # Rounding may take a value to the neighbouring level further on.
    assert sqnr_db(returned.run(UNSEEN)[0], result.run(UNSEEN)[0]) > 50
