from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edgekit.calibration import Recipe
from edgekit.errors import ModelError, UserError
from edgekit.passes import run_passes
from edgekit.passes.aten import is_call, read_tensor
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.targets import QuantizeRules
from tests.networks import CONTEXT, NETWORKS, batches, folded, pictures

QDQ = torch.ops.edgekit.qdq.default
RECIPE = Recipe(name="test", title="", samples=32, batch_size=8)
DATA = CalibrationData(source=batches, count=32)
UINT8 = QuantizeRules(activations="uint8-asymmetric")
INT8 = QuantizeRules(activations="int8-symmetric")


def quantized(item: Program, rules: QuantizeRules = UINT8, recipe: Recipe = RECIPE) -> Program:
    return run_passes(item, [Quantize(rules=rules, recipe=recipe, data=DATA)], CONTEXT)


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    return float(10 * torch.log10(reference.square().sum() / (actual - reference).square().sum()))


@pytest.mark.parametrize("rules", [UINT8, INT8], ids=["uint8", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_program_stays_close_to_float_on_unseen_images(name: str, rules: QuantizeRules) -> None:
    item = folded(name)
    images = pictures(16, seed=99)
    assert sqnr_db(item.run(images)[0], quantized(item, rules).run(images)[0]) > 20


@pytest.mark.parametrize("name", NETWORKS)
def test_every_planned_layer_reads_int8_input_and_int8_weight(name: str) -> None:
    result = quantized(folded(name))
    layers = 0
    for node in result.graph.graph.nodes:
        if is_call(node.args[1] if len(node.args) > 1 else None, {QDQ}) and node.target is not QDQ:
            layers += 1
    record = result.history[-1]
    # A residual add's or a product's second argument is a pair too, but not a weight.
    assert layers >= record.changed > 0


def test_one_pair_a_tensor_is_shared_by_all_its_consumers() -> None:
    result = quantized(folded("residual"))
    (relu,) = [node for node in result.graph.graph.nodes if node.name == "relu"]
    (pair,) = relu.users
    assert is_call(pair, {QDQ})
    assert {user.name for user in pair.users} == {"one_0", "add"}


def test_tied_tensors_have_one_scale() -> None:
    result = quantized(folded("dense"))
    (cat,) = [node for node in result.graph.graph.nodes if is_call(node, {torch.ops.aten.cat.default})]
    scales = [float(read_tensor(result.graph, pair.args[1])) for pair in cat.args[0]]  # type: ignore[union-attr]
    assert len(scales) == 2
    assert scales[0] == scales[1]


def test_weights_stay_trainable_and_receive_gradients() -> None:
    trained = quantized(folded("residual")).module()
    loss = (
        trained(pictures(4))[0].square().sum()
        if isinstance(trained(pictures(4)), (tuple, list))
        else trained(pictures(4)).square().sum()
    )
    loss.backward()
    gradients = {name: item.grad for name, item in trained.named_parameters()}
    weights = [name for name in gradients if name.endswith("weight")]
    assert weights
    assert all(gradients[name] is not None and gradients[name].abs().sum() > 0 for name in weights)


def test_same_images_and_recipe_give_the_same_numbers() -> None:
    first, second = (quantized(folded("squeeze-excite")).graph.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_given_program_stays_as_it_was() -> None:
    item = folded("residual")
    before = {name: value.clone() for name, value in item.graph.state_dict().items()}
    quantized(item)
    after = item.graph.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_history_tells_ranges_and_reasons() -> None:
    record = quantized(folded("attention")).history[-1]
    assert record.stage == "quantize"
    assert record.details["images"] == 32
    assert all("rule" in item.why for item in record.skipped)
    assert record.details["tensors"]
    for tensor in record.details["tensors"]:
        assert tensor["range"][0] <= 0 <= tensor["range"][1]
        assert tensor["observed"][0] <= tensor["observed"][1]


def test_no_image_at_all_is_an_error() -> None:
    def nothing() -> Iterator[tuple[torch.Tensor, ...]]:
        return iter(())

    empty = CalibrationData(source=nothing, count=0)
    with pytest.raises(UserError, match="no image could be used"):
        run_passes(folded("residual"), [Quantize(rules=UINT8, recipe=RECIPE, data=empty)], CONTEXT)


def test_nan_in_the_weights_names_the_tensor() -> None:
    item = folded("residual")
    with torch.no_grad():
        item.graph.get_parameter("stem.0.weight").fill_(float("nan"))
    with pytest.raises(ModelError, match=r"the weight of layer 'stem\.0' holds NaN or infinity"):
        quantized(item)


def test_quantizing_twice_or_before_folding_is_refused() -> None:
    from tests.networks import program

    item = folded("residual")
    with pytest.raises(UserError, match="quantized already"):
        quantized(quantized(item))
    with pytest.raises(UserError, match="still has batch norm"):
        quantized(program("residual"))
