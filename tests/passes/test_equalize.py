from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import EdgekitError, UserError
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.aten import clean, node_facts, read_tensor
from edgekit.passes.equalize import EqualizeChannels
from edgekit.passes.equalize.chains import find_chains
from edgekit.passes.equalize.channels import scale_chain
from edgekit.passes.equalize.smooth import find_norms, scale_norm
from edgekit.passes.samples import CalibrationData
from edgekit.targets import QuantizeRules
from tests.equalize_networks import (
    CORRECTIONS,
    DATA,
    INT8,
    UINT8,
    UNSEEN,
    Activation,
    Chain,
    Tokens,
    TwoByTwo,
    awkward,
    broken,
    built,
    centred,
    equalizing,
    int8_db,
    loaded,
    quantizing,
    record_of,
    saturating,
    smoothing,
    sqnr_db,
    tokens,
)
from tests.networks import CONTEXT, NETWORKS, batches, folded, pictures


@pytest.mark.parametrize("rules", [UINT8, INT8], ids=["uint8", "int8"])
@pytest.mark.parametrize("layers", [("wide", "deeper"), ("deeper", "point")], ids=["to-depthwise", "to-pointwise"])
@pytest.mark.parametrize("activation", [F.relu, F.relu6, nn.Identity()], ids=["relu", "relu6", "none"])
def test_a_network_broken_on_purpose_is_repaired(
    activation: Activation, layers: tuple[str, str], rules: QuantizeRules
) -> None:
    sound = loaded(built(Chain(activation)))
    item = loaded(broken(built(Chain(activation)), *layers, shrink=activation is F.relu6))
    assert sqnr_db(centred(sound), centred(item)) > 100
    reached = int8_db(sound, rules=rules)
    assert int8_db(item, rules=rules) < reached - 10
    assert int8_db(item, equalizing(rules), rules=rules) > reached - 1


@pytest.mark.parametrize("rules", [UINT8, INT8], ids=["uint8", "int8"])
def test_outlier_channels_after_a_layer_norm_are_smoothed(rules: QuantizeRules) -> None:
    reached = int8_db(loaded(built(Tokens())), rules=rules)
    net = built(Tokens())
    factors = torch.ones(32)
    factors[[3, 11]] = 50.0
    with torch.no_grad():
        for norm, linears in ((net.before, (net.query, net.key, net.value)), (net.after, (net.up,))):
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            for linear in linears:
                linear.weight.div_(factors)
    item = loaded(net)
    assert int8_db(item, rules=rules) < reached - 10
    assert int8_db(item, smoothing(rules), rules=rules) > reached - 1


def test_linears_that_share_a_norm_are_scaled_together() -> None:
    result = run_passes(loaded(built(Tokens())), [smoothing()], CONTEXT)
    lines = record_of(result, "smooth-activations").details["gains"]
    assert "layer_norm -> query, key, value" in [line["layer"] for line in lines]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_float_function_stays(name: str) -> None:
    item = folded(name)
    result = run_passes(item, [equalizing(), smoothing()], CONTEXT)
    assert sqnr_db(item.run(UNSEEN)[0], result.run(UNSEEN)[0]) > 100
    # One image: nothing was baked in for the batch that was looked at.
    assert sqnr_db(item.run(UNSEEN[:1])[0], result.run(UNSEEN[:1])[0]) > 100


def test_two_inputs_and_two_outputs_keep_their_functions() -> None:
    net = built(TwoByTwo())
    images = [torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]
    data = CalibrationData(source=lambda: zip(images[:5], images[5:], strict=True), count=40)
    with torch.no_grad():
        net.left.weight.mul_(10 ** torch.linspace(0, 2, 8).reshape(-1, 1, 1, 1))  # type: ignore[union-attr, operator]
    item = load_program(net, task=None, example_inputs=(images[0], images[5]))
    result = run_passes(item, [equalizing(data=data)], CONTEXT)
    record = record_of(result, "equalize-channels")
    assert record.changed == 1
    assert [skip.why for skip in record.skipped] == ["'relu_1' is read by output, right2"]
    for before, after in zip(item.run(images[1], images[6]), result.run(images[1], images[6]), strict=True):
        assert sqnr_db(before, after) > 100


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), decades=st.floats(0, 3))
def test_any_positive_factors_leave_the_function_as_it_is(seed: int, decades: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for item in (awkward(), tokens()):
        result = item.copied()
        facts = node_facts(result.graph, UNSEEN[:1])
        chains, _ = find_chains(result.graph)
        norms, _ = find_norms(result.graph, facts, UINT8)
        for group in [*chains, *norms]:
            factors = 10 ** (decades * (torch.rand(group.channels, generator=generator) - 0.5))
            if group in norms:
                scale_norm(result.graph, group, factors)
            else:
                scale_chain(result.graph, group, factors, facts)
        clean(result.graph)
        # In float64, so that nothing but the algebra is looked at.
        before, after = item.module().double(), result.module().double()
        with torch.no_grad():
            pixels = UNSEEN[:4]
            difference = as_double(after)(pixels)[0] - as_double(before)(pixels)[0]
        assert difference.abs().max() < 1e-5


def as_double(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    for node in graph.graph.nodes:
        node.args = tuple(torch.float64 if arg is torch.float32 else arg for arg in node.args)
    graph.recompile()
    return graph


def test_everything_between_two_layers_is_found() -> None:
    found = [(group.title, group.bound) for group in find_chains(awkward().graph)[0]]
    assert found == [
        ("one -> two", 6.0),
        ("two -> up", None),
        ("up -> three", 0.5),
        ("three -> four", None),
        ("five -> six", 6.0),
    ]


def test_chains_that_must_be_left_say_why() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.deep = nn.Conv2d(8, 8, 3, groups=8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.two(F.silu(self.one(x))))
            x = F.relu(self.two(self.three(F.hardtanh(x))))
            x = self.deep(x)
            return (x + self.three(x)).mean((2, 3))

    record = record_of(
        run_passes(loaded(built(Left())), [equalizing(replace(UINT8, depthwise="float"))], CONTEXT), "equalize-channels"
    )
    assert record.changed == 0
    assert [(item.where, item.why) for item in record.skipped] == [
        ("one", "'silu' between it and the next layer does not commute with factors"),
        ("two", "'hardtanh' between it and the next layer does not commute with factors"),
        ("three", "the weight of 'three' is shared by 2 nodes"),
        ("two_1", "the weight of 'two_1' is shared by 2 nodes"),
        ("deep", "'deep' is read by add, three_1"),
    ]


def test_a_depthwise_layer_in_float_has_nothing_to_gain() -> None:
    result = run_passes(loaded(built(Chain())), [equalizing(replace(UINT8, depthwise="float"))], CONTEXT)
    left = {item.where: item.why for item in record_of(result, "equalize-channels").skipped}
    assert left["stem -> deep"] == "'deep' is not int8: the target runs depthwise convolutions faster in float"


def test_a_norm_that_something_else_reads_is_left() -> None:
    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm, self.linear = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.patch(x).flatten(2).transpose(1, 2))
            return (x + self.linear(x)).mean(1)

    record = record_of(run_passes(loaded(built(Post())), [smoothing()], CONTEXT), "smooth-activations")
    assert [(item.where, item.why) for item in record.skipped] == [("layer_norm", "'add' reads it too")]


def test_channels_that_are_alike_are_left() -> None:
    net = built(Chain())
    with torch.no_grad():
        for layer in (net.stem, net.wide, net.point):
            layer.weight.copy_(layer.weight[:1].expand_as(layer.weight))  # type: ignore[operator, index, union-attr]
            layer.bias.fill_(0.1)  # type: ignore[operator, union-attr]
    result = run_passes(loaded(net), [equalizing()], CONTEXT)
    record = record_of(result, "equalize-channels")
    reasons = [item.why for item in record.skipped if item.where in ("stem -> deep", "wide -> deeper")]
    assert len(reasons) == 2
    assert all("alike enough" in why for why in reasons)


def uneven() -> Iterator[tuple[torch.Tensor, ...]]:
    """Every fourth image, which judges, is what none of the others is: bright red."""
    images = pictures(32)
    images[..., 2] = images[..., 2] // 64
    images[3::4, ..., 2] = 255
    for part in images.split(8):
        yield (part,)


def test_what_loses_on_images_that_it_was_not_fitted_on_is_undone() -> None:
    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split, self.join = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.join(F.relu(self.split(x))).mean((2, 3))

    net = built(Colours())
    with torch.no_grad():
        # Pixels from 0 up again, one colour a channel.
        net.split.weight.copy_(torch.diag(torch.tensor([0.25, 0.3, 0.2])).reshape(3, 3, 1, 1))  # type: ignore[union-attr, operator]
        net.split.bias.copy_(torch.tensor([0.5, 0.45, 0.4]))  # type: ignore[union-attr, operator]
    data = CalibrationData(source=uneven, count=32)
    item = loaded(net)
    result = run_passes(item, [equalizing(data=data)], CONTEXT)
    record = record_of(result, "equalize-channels")
    assert record.changed == 0
    (line,) = record.details["gains"]
    assert line["kept"] is False
    assert line["gain_db"] < 0
    assert record.skipped[0].why.startswith("on images that it was not fitted on it gained -")
    assert torch.equal(item.run(UNSEEN)[0], result.run(UNSEEN)[0])


class Counting:
    """Counts how often the images are streamed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        self.times += 1
        return batches()


def test_images_are_not_looked_at_where_there_is_no_chain_and_no_norm() -> None:
    source = Counting()
    data = CalibrationData(source=source, count=32)
    run_passes(folded("dense"), [smoothing(data=data)], CONTEXT)
    run_passes(folded("attention"), [equalizing(data=data)], CONTEXT)
    assert source.times == 0


def test_images_are_streamed_twice_and_once_for_the_shapes() -> None:
    source = Counting()
    result = run_passes(saturating(), [equalizing(data=CalibrationData(source=source, count=32))], CONTEXT)
    assert record_of(result, "equalize-channels").changed > 0
    assert source.times == 3


def test_without_images_to_judge_on_nothing_is_done() -> None:
    data = CalibrationData(source=lambda: batches(3), count=3)
    record = record_of(run_passes(saturating(), [equalizing(data=data)], CONTEXT), "equalize-channels")
    assert record.changed == 0
    assert record.details["gains"] == []
    assert any("no held-out image" in item.why for item in record.skipped)


def test_nan_is_left_to_the_calibration_that_names_it() -> None:
    item = loaded(broken(built(Chain()), "wide", "deeper"))
    with torch.no_grad():
        read_tensor(item.graph, next(n for n in item.graph.graph.nodes if n.target == "stem.weight")).fill_(math.nan)
    result = run_passes(item, [equalizing()], CONTEXT)
    assert {skip.why for skip in record_of(result, "equalize-channels").skipped} == {"its tensor holds NaN or infinity"}
    with pytest.raises(EdgekitError, match="NaN"):
        run_passes(result, quantizing(), CONTEXT)


def test_the_record_says_what_each_pair_gained() -> None:
    result = run_passes(loaded(broken(built(Chain()), "wide", "deeper")), [equalizing()], CONTEXT)
    record = record_of(result, "equalize-channels")
    line = next(line for line in record.details["gains"] if line["layer"] == "wide -> deeper")
    assert line["kept"] is True
    assert line["gain_db"] > 20
    assert line["gain_db"] == pytest.approx(line["sqnr_after_db"] - line["sqnr_before_db"], abs=0.011)
    assert record.changed == sum(item["kept"] for item in record.details["gains"])


def test_the_given_program_stays_as_it_was() -> None:
    item = loaded(built(Chain()))
    before = {name: value.clone() for name, value in item.graph.state_dict().items()}
    run_passes(item, [equalizing(), smoothing()], CONTEXT)
    assert all(torch.equal(before[name], value) for name, value in item.graph.state_dict().items())


def test_a_quantized_or_unfolded_program_is_refused() -> None:
    from tests.networks import program

    done = run_passes(folded("depthwise"), quantizing(), CONTEXT)
    with pytest.raises(UserError, match="quantized already"):
        run_passes(done, [equalizing()], CONTEXT)
    with pytest.raises(UserError, match="still has batch norm"):
        run_passes(program("depthwise"), [smoothing()], CONTEXT)


def test_the_recipe_can_keep_to_depthwise_chains() -> None:
    alone = replace(CORRECTIONS, equalize="depthwise")
    for name, looked_at in (("residual", False), ("depthwise", True)):
        step = EqualizeChannels(rules=UINT8, corrections=alone, data=DATA)
        record = run_passes(folded(name), [step], CONTEXT).history[-1]
        left = [item for item in record.skipped if "depthwise convolution alone" in item.why]
        assert bool(left) is not looked_at
        assert bool(record.details["gains"]) is looked_at
