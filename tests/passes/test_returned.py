from __future__ import annotations

import pytest
import torch

from edgekit.errors import UserError
from edgekit.passes import run_passes
from edgekit.passes.aten import is_call
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.returned import ReturnToFloat, quantized_layers
from edgekit.program import Program
from tests.networks import CONTEXT, NETWORKS, folded, pictures
from tests.passes.test_quantize import quantized


def returned(item: Program, result: Program, names: list[str]) -> Program:
    step = ReturnToFloat(layers=dict.fromkeys(names, "it costs too much"), floating=item)
    return run_passes(result, [step], CONTEXT)


def names_of(result: Program) -> list[str]:
    return [node.name for node in quantized_layers(result.graph)]


@pytest.mark.parametrize("name", NETWORKS)
def test_with_every_layer_returned_only_activations_between_other_operators_are_rounded(name: str) -> None:
    item = folded(name)
    result = quantized(item)
    back = returned(item, result, names_of(result))
    assert not quantized_layers(back.graph)
    images = pictures(8, seed=5)
    reference = item.run(images)[0]
    before, after = ((part.run(images)[0] - reference).norm() for part in (result, back))
    assert after < before
    if not [node for node in back.graph.graph.nodes if is_call(node, {QDQ})]:
        torch.testing.assert_close(back.run(images)[0], reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_returned_layer_alone_is_float_and_the_rest_stays_as_it_was(name: str) -> None:
    item = folded(name)
    result = quantized(item)
    chosen = names_of(result)[0]
    back = returned(item, result, [chosen])
    assert names_of(back) == [other for other in names_of(result) if other != chosen]
    (node,) = [node for node in back.graph.graph.nodes if node.name == chosen]
    assert node.args[1].op == "get_attr"
    assert torch.equal(
        back.graph.get_parameter(str(node.args[1].target)),
        item.graph.get_parameter(str(next(n for n in item.graph.graph.nodes if n.name == chosen).args[1].target)),
    )
    assert not is_call(node.args[0], {QDQ})
    assert back.history[-1].skipped[0].why == "it costs too much"


def test_a_layer_with_a_shared_weight_goes_back_alone() -> None:
    item = folded("shared")
    result = quantized(item)
    first, second = [name for name in names_of(result) if name.startswith("twice")]
    assert second in names_of(returned(item, result, [first]))


def test_a_layer_that_is_not_int8_is_refused_by_name() -> None:
    item = folded("residual")
    with pytest.raises(UserError, match="has no int8 layer nonsense"):
        returned(item, quantized(item), ["nonsense"])
