from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import fx, nn

from edgekit.calibration import Corrections
from edgekit.errors import ConfigError
from edgekit.passes import run_passes
from edgekit.passes.aten import COMPUTE, is_call, read_tensor
from edgekit.passes.correct import CorrectBias
from edgekit.passes.correct.lockstep import channel_axis, int8_layers
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from tests.networks import CONTEXT, NETWORKS, batches, folded
from tests.passes.pairs import DATA, data_of, noise, quantized, raw, two_streams

ONCE = Corrections(bias="once", samples=24, held_out=8)
SEQUENTIAL = replace(ONCE, bias="sequential")


def corrected(
    floating: Program, program: Program, options: Corrections = ONCE, data: CalibrationData = DATA
) -> Program:
    return run_passes(program, [CorrectBias(floating=floating, corrections=options, data=data)], CONTEXT)


def bias_of(program: Program, name: str) -> torch.Tensor:
    (node,) = [node for node in program.graph.graph.nodes if node.name == name]
    bias = node.args[2] if len(node.args) > 2 else None
    if not isinstance(bias, fx.Node):
        return torch.zeros(())
    return read_tensor(program.graph, bias).detach()


def values(program: Program, data: CalibrationData) -> dict[str, torch.Tensor]:
    """All tensors of the fitted images, by node name."""
    found: dict[str, list[torch.Tensor]] = {}

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> object:
            result = super().run_node(node)
            if node.op == "call_function" and isinstance(result, torch.Tensor):
                found.setdefault(node.name, []).append(result)
            return result

    with torch.no_grad():
        for batch in data.fit(ONCE.samples):
            Watcher(program.graph).run(*batch)
    return {name: torch.cat(parts) for name, parts in found.items() if parts[0].ndim}


@pytest.mark.parametrize("name", NETWORKS)
def test_once_gives_back_what_rounding_the_weights_adds_on_float_activations(name: str) -> None:
    floating = folded(name)
    before = quantized(floating)
    after = corrected(floating, before)
    kept = {line["node"] for line in after.history[-1].details["gains"] if line["kept"]}
    assert kept
    inputs = values(floating, DATA)
    originals = {node.name: node for node in floating.graph.graph.nodes}
    for node in int8_layers(before.graph):
        partner = originals[node.name]
        source = partner.args[0]
        error = _weight_error(floating, before, node, partner)
        output = partner.target(inputs[source.name], error, None, *partner.args[3:])
        expected = output.transpose(0, channel_axis(node, output)).flatten(1).mean(1)
        shift = bias_of(before, node.name) - bias_of(after, node.name)
        if node.name in kept:
            assert torch.allclose(shift, expected, rtol=1e-3, atol=1e-5)
        else:
            assert bool((shift == 0).all())


def _weight_error(floating: Program, program: Program, node: fx.Node, partner: fx.Node) -> torch.Tensor:
    pair = node.args[1]
    tensors = [read_tensor(program.graph, item).detach() for item in pair.args[:3]]
    return pair.target(*tensors, *pair.args[3:]) - read_tensor(floating.graph, partner.args[1]).detach()


def mean_error(floating: Program, program: Program, name: str) -> float:
    """How far the mean of a tensor is off, over channels."""
    first, second = (values(item, DATA)[name] for item in (floating, program))
    return float((second - first).transpose(0, 1).flatten(1).mean(1).norm())


@pytest.mark.parametrize("options", [ONCE, SEQUENTIAL], ids=["once", "sequential"])
def test_the_means_of_the_outputs_come_back(options: Corrections) -> None:
    floating = folded("residual")
    before = quantized(floating)
    after = corrected(floating, before, options)
    # Without the correction both sides are the same number.
    assert mean_error(floating, after, "one_0") < 0.35 * mean_error(floating, before, "one_0")


def test_sequential_makes_the_sum_of_a_residual_add_right() -> None:
    floating = folded("residual")
    before = quantized(floating)
    after, once = (corrected(floating, before, options) for options in (SEQUENTIAL, ONCE))
    errors = {
        name: mean_error(floating, item, "add") for name, item in (("no", before), ("seq", after), ("once", once))
    }
    # The branch makes up for what the shortcut is off by; on float activations nothing is known of that.
    assert errors["seq"] < 0.2 * errors["no"]
    assert errors["seq"] < 0.5 * errors["once"]


@pytest.mark.parametrize("options", [ONCE, SEQUENTIAL], ids=["once", "sequential"])
def test_what_does_not_help_other_images_is_undone(options: Corrections) -> None:
    torch.manual_seed(0)
    floating = raw(nn.Conv2d(4, 5, 1), torch.randn(2, 4, 6, 6))
    images = noise(32, 4, 6, 6)
    # Every fourth image is the negative: what its mean is off by is the opposite, and any correction makes it worse.
    images[3::4] *= -1
    data = data_of(images)
    before = quantized(floating, data=data)
    after = corrected(floating, before, options, data)
    record = after.history[-1]
    assert record.changed == 0
    assert [item.why for item in record.skipped] == [
        f"on images that it was not fitted on it gained {record.details['gains'][0]['gain_db']:.2f} dB: undone"
    ]
    assert record.details["gains"][0]["gain_db"] < 0
    assert torch.equal(bias_of(before, "conv2d"), bias_of(after, "conv2d"))


@pytest.mark.parametrize("options", [ONCE, SEQUENTIAL], ids=["once", "sequential"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_shared_bias_stays_as_it_was_for_the_others(options: Corrections, batch: int) -> None:
    floating, data = two_streams(batch)
    before = quantized(floating, data=data)
    names = [node.name for node in int8_layers(before.graph)][:2]
    assert torch.equal(*(bias_of(before, name) for name in names))
    after = corrected(floating, before, options, data)
    first, second = (bias_of(before, name) - bias_of(after, name) for name in names)
    assert not torch.allclose(first, second)
    kept = [line["kept"] for line in after.history[-1].details["gains"]]
    assert len(kept) == 4
    assert [bool((item != 0).any()) for item in (first, second)] == kept[:2]
    assert after.run(*next(data.batches()))[0].shape == before.run(*next(data.batches()))[0].shape


def test_one_convolution_applied_twice_gets_two_biases() -> None:
    floating = folded("shared")
    before = quantized(floating)
    after = corrected(floating, before)
    names = [node.name for node in after.graph.graph.nodes if is_call(node, COMPUTE)][1:3]
    shifts = [bias_of(before, name) - bias_of(after, name) for name in names]
    assert all(bool((shift != 0).any()) for shift in shifts)
    assert not torch.allclose(*shifts)


@pytest.mark.parametrize("options", [ONCE, SEQUENTIAL], ids=["once", "sequential"])
def test_same_programs_and_images_give_the_same_numbers(options: Corrections) -> None:
    floating = folded("squeeze-excite")
    program = quantized(floating)
    first, second = (corrected(floating, program, options).graph.state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(
        name not in program.graph.state_dict() or not torch.equal(value, program.graph.state_dict()[name])
        for name, value in first.items()
    )


@pytest.mark.parametrize("options", [ONCE, SEQUENTIAL], ids=["once", "sequential"])
def test_the_given_programs_stay_as_they_were(options: Corrections) -> None:
    floating = folded("residual")
    program = quantized(floating)
    before = [{name: value.clone() for name, value in item.graph.state_dict().items()} for item in (floating, program)]
    corrected(floating, program, options)
    for old, item in zip(before, (floating, program), strict=True):
        now = item.graph.state_dict()
        assert old.keys() == now.keys()
        assert all(torch.equal(old[name], now[name]) for name in old)


def test_too_few_images_are_a_reason_not_a_silence() -> None:
    floating = folded("residual")
    data = CalibrationData(source=lambda: batches(3), count=3)
    program = quantized(floating, data=data)
    record = corrected(floating, program, data=data).history[-1]
    assert record.changed == 0
    assert [item.why for item in record.skipped] == [
        "3 calibration images are too few: every fourth one is kept for judging"
    ]


def test_off_is_no_mode_of_the_pass() -> None:
    with pytest.raises(ConfigError, match="expected once or sequential"):
        CorrectBias(floating=folded("residual"), corrections=Corrections(bias="off"), data=DATA)
