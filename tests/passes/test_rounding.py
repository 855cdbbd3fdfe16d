from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekit.calibration import Corrections
from edgekit.errors import ConfigError
from edgekit.export import export_portable
from edgekit.passes import run_passes
from edgekit.passes.aten import read_tensor
from edgekit.passes.correct import AdaptRounding
from edgekit.passes.correct.least_squares import best_real, round_in_order, sweep
from edgekit.passes.correct.lockstep import Lockstep, channel_axis, int8_layers, weight_pair
from edgekit.passes.correct.rounding import _target
from edgekit.passes.correct.rows import Moments, collect
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.targets import Portable, QuantizeRules
from tests.networks import CONTEXT, folded, pictures
from tests.passes.pairs import DATA, data_of, noise, quantized, raw, sqnr_db, two_streams

OPTIONS = Corrections(rounding="adaptive", samples=24, held_out=8)
LIMITS = (-7, 7)


def adapted(floating: Program, program: Program, data: CalibrationData = DATA) -> Program:
    return run_passes(program, [AdaptRounding(floating=floating, corrections=OPTIONS, data=data)], CONTEXT)


def levels(program: Program) -> dict[str, torch.Tensor]:
    """The integers of every int8 weight, as export rounds them, by the weight's name."""
    found = {}
    for node in int8_layers(program.graph):
        pair = weight_pair(node)
        assert pair is not None
        value, scale = (read_tensor(program.graph, item).detach() for item in pair.args[:2])  # type: ignore[arg-type]
        axis = pair.args[3]
        assert isinstance(axis, int)
        exact = value / scale.reshape([-1 if index == axis else 1 for index in range(value.ndim)])
        found[str(pair.args[0].target)] = exact.round().clamp(pair.args[4], pair.args[5])  # type: ignore[union-attr, arg-type]
    return found


def problem(rows: int = 64, columns: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A Gram matrix of inputs that depend on each other, weights of 5 channels, and their steps; one group."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, columns, generator=generator) @ torch.randn(columns, columns, generator=generator) + 1
    weight = torch.randn(1, 5, columns, generator=generator)
    return (mixed.T @ mixed)[None], weight, weight.abs().amax(2, keepdim=True) / 7


def loss(values: torch.Tensor, target: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """The squared error of each channel."""
    return (((values - target) @ gram) * (values - target)).sum(2)


@pytest.mark.parametrize("seed", range(5))
def test_integers_chosen_together_are_better_than_the_nearest(seed: int) -> None:
    gram, weight, step = problem(columns=40, seed=seed)
    nearest = (weight / step).round().clamp(*LIMITS)
    ordered = round_in_order(weight, gram, step, LIMITS, 1e-4)
    swept = sweep(ordered, weight, gram, step, LIMITS, 0.0)
    losses = [float(loss(item * step, weight, gram).sum()) for item in (nearest, ordered, swept)]
    assert losses[1] < 0.85 * losses[0]
    assert losses[2] < losses[1]
    for item in (ordered, swept):
        assert torch.equal(item, item.round())
        assert item.abs().max() <= 7


def test_blocks_of_columns_are_only_an_order_of_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    gram, weight, step = problem(columns=300, rows=400)
    blocked = round_in_order(weight, gram, step, LIMITS, 1.0)
    monkeypatch.setattr("edgekit.passes.correct.least_squares._BLOCK", 1000)
    whole = round_in_order(weight, gram, step, LIMITS, 1.0)
    # One sum in another order may round a tie otherwise.
    assert float(loss(blocked * step, weight, gram).sum()) == pytest.approx(
        float(loss(whole * step, weight, gram).sum()), rel=0.02
    )
    assert float((blocked == whole).float().mean()) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_never_raises_the_error_and_ends_where_no_single_step_helps(seed: int) -> None:
    gram, weight, step = problem(columns=150, rows=300, seed=seed)  # more columns than a block
    current = (weight / step).round().clamp(*LIMITS)
    before = loss(current * step, weight, gram)
    for _ in range(30):
        current = sweep(current, weight, gram, step, LIMITS, 0.0)
        after = loss(current * step, weight, gram)
        assert bool((after <= before * (1 + 1e-4)).all())
        before = after
    for column in range(0, 150, 7):
        for change in (-1, 1):
            moved = current.clone()
            moved[..., column] = (moved[..., column] + change).clamp(*LIMITS)
            assert bool((loss(moved * step, weight, gram) >= before * (1 - 1e-4)).all())


def test_few_weights_come_close_to_the_best_of_all_choices() -> None:
    gram, weight, step = problem(columns=4)
    found = sweep(round_in_order(weight, gram, step, (-2, 2), 1e-4), weight, gram, step, (-2, 2), 0.0)
    every = torch.tensor(list(product(range(-2, 3), repeat=4)), dtype=torch.float32)
    for channel in range(5):
        one, unit = weight[:, channel : channel + 1], step[:, channel : channel + 1]
        best = loss(every[None] * unit, one, gram).min()
        nearest = loss((one / unit).round().clamp(-2, 2) * unit, one, gram)[0, 0]
        mine = loss(found[:, channel : channel + 1] * unit, one, gram)[0, 0]
        assert best <= mine * (1 + 1e-4)
        assert mine <= nearest * (1 + 1e-4)


def test_inputs_that_do_not_depend_on_each_other_leave_the_nearest() -> None:
    _, weight, step = problem()
    gram = torch.diag(torch.tensor([3.0, 1, 7, 2, 5, 4]))[None]
    nearest = (weight / step).round().clamp(*LIMITS)
    assert torch.equal(round_in_order(weight, gram, step, LIMITS, 0.01), nearest)
    assert torch.equal(sweep(nearest, weight, gram, step, LIMITS, 0.01), nearest)


def test_least_squares_find_the_weights_behind_the_outputs_and_damping_holds_them_back() -> None:
    gram, weight, _ = problem()
    true = weight + 0.3
    product_ = true @ gram
    assert torch.allclose(best_real(gram, product_, weight, 1e-5), true, atol=1e-2)
    assert torch.allclose(best_real(gram, product_, weight, 1e9), weight, atol=1e-4)


def test_the_target_moves_only_where_both_halves_of_the_images_say_so() -> None:
    gram, weight, _ = problem(rows=200)
    other = problem(rows=200, seed=0)[0] * 1.1
    true = weight + 0.3
    agree = [Moments(gram=item, product=true @ item, rows=200) for item in (gram, other)]
    moved = _target(weight, (agree[0], agree[1]))
    assert float(loss(moved, true, gram).sum()) < 0.2 * float(loss(weight, true, gram).sum())
    disagree = Moments(gram=other, product=(weight - 0.3) @ other, rows=200)
    assert torch.equal(_target(weight, (agree[0], disagree)), weight)


class Forms(nn.Module):
    """One layer of every form that is written as a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 6, 3, padding=1, stride=2)
        self.plain = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
        self.grouped = nn.Conv2d(6, 9, 3, groups=3, bias=False)
        self.same = nn.Conv2d(9, 9, (4, 3), padding="same", groups=9)
        self.volume = nn.Conv3d(9, 2, (1, 2, 2), stride=(1, 2, 1), padding=(0, 1, 0))
        self.dense = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor, line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.same(self.grouped(self.plain(x)))
        return self.volume(y.unsqueeze(2)), self.line(line), self.dense(x.permute(0, 2, 3, 1))


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_rows_times_weights_are_the_layers_outputs() -> None:
    torch.manual_seed(0)
    inputs = noise(12, 4, 9, 8), noise(12, 4, 10)
    floating, data = raw(Forms(), *(tensor[:2] for tensor in inputs)), data_of(*inputs)
    program = quantized(floating, data=data)
    batches = list(data.batches())
    seen = 0
    with torch.no_grad():
        for stop in Lockstep(floating.graph, program.graph, batches).stops(int8_layers(program.graph)):
            # All positions: the squared output wanted is then exactly what the sums say of the weights.
            first, second = collect(stop, range(len(batches)), rows=10**6, seed=0)
            whole = first + second
            assert abs(first.rows - second.rows) <= first.rows // 2
            weight = stop.quantized_weight().reshape(whole.product.shape)
            square = ((weight @ whole.gram) * weight).sum()
            cross = (weight * whole.product).sum()
            outputs = [stop.quantized_output(batch) for batch in range(len(batches))]
            bias = stop.bias()
            axis = channel_axis(stop.node, outputs[0])
            shape = [-1 if index == axis else 1 for index in range(outputs[0].ndim)]
            plain = [item if bias is None else item - bias.reshape(shape) for item in outputs]
            wanted = [stop.wanted_output(batch) for batch in range(len(batches))]
            assert float(square) == pytest.approx(float(sum(item.square().sum() for item in plain)), rel=1e-4)
            expected = float(sum((left * right).sum() for left, right in zip(plain, wanted, strict=True)))
            assert float(cross) == pytest.approx(expected, rel=1e-3)
            assert whole.rows == sum(item.numel() for item in outputs) // stop.float_weight().shape[0]
            seen += 1
    assert seen == 6


def test_fewer_rows_are_spread_over_all_images() -> None:
    floating = folded("residual")
    program = quantized(floating)
    batches = list(DATA.fit(24))
    with torch.no_grad():
        stop = next(iter(Lockstep(floating.graph, program.graph, batches).stops(int8_layers(program.graph))))
        first, second = collect(stop, range(len(batches)), rows=240, seed=0)
    assert (first.rows, second.rows) == (120, 120)


def test_halves_are_different_images_in_batches_of_one_too() -> None:
    floating, data = two_streams(1)
    program = quantized(floating, data=data)
    batches = list(data.fit(5))
    with torch.no_grad():
        stop = next(iter(Lockstep(floating.graph, program.graph, batches).stops(int8_layers(program.graph))))
        first, second = collect(stop, range(5), rows=10**6, seed=0)
    assert (first.rows, second.rows) == (3 * 36, 2 * 36)
    assert not torch.allclose(first.gram, second.gram, rtol=0.01)


@pytest.mark.parametrize("name", ["residual", "depthwise", "squeeze-excite", "dense", "attention"])
def test_outputs_of_unseen_images_come_closer_to_float(name: str) -> None:
    floating = folded(name)
    # Few bits make the weights' share of the error large; without the pass both sides are the same number.
    before = coarse(quantized(floating))
    after = adapted(floating, before)
    images = pictures(32, seed=99)
    reference = floating.run(images)[0]
    assert sqnr_db(reference, after.run(images)[0]) > sqnr_db(reference, before.run(images)[0]) + 2
    assert after.history[-1].changed > 0
    assert all(line["gain_db"] > 0 for line in after.history[-1].details["gains"] if line["kept"])


def coarse(program: Program, bits: int = 4) -> Program:
    """The same with coarser weights."""
    program = program.copied()
    limit = 2 ** (bits - 1) - 1
    for node in int8_layers(program.graph):
        pair = weight_pair(node)
        assert pair is not None
        if pair.args[5] == limit:
            continue  # a shared one, done already
        scale = read_tensor(program.graph, pair.args[1])  # type: ignore[arg-type]
        scale *= pair.args[5] / limit  # type: ignore[operator]
        pair.args = (*pair.args[:4], -limit, limit)
    program.graph.recompile()
    return program


@pytest.mark.parametrize("batch", [1, 4])
def test_several_inputs_and_outputs(batch: int) -> None:
    floating, data = two_streams(batch)
    before = coarse(quantized(floating, data=data))
    after = adapted(floating, before, data)
    assert after.history[-1].changed > 0
    gains = []
    for images in data.held_out(8):
        reference = floating.run(*images)
        for number in range(2):
            errors = [(item.run(*images)[number] - reference[number]).square().sum() for item in (before, after)]
            gains.append(float(errors[0] - errors[1]))
    assert sum(gains) > 0


def test_scales_stay_and_export_writes_exactly_the_chosen_integers() -> None:
    floating = folded("residual")
    before = quantized(floating, rules=QuantizeRules(activations="uint8-asymmetric", weight_bits=7))
    after = adapted(floating, before)
    chosen, nearest = levels(after), levels(before)
    changed = {name for name in chosen if not torch.equal(chosen[name], nearest[name])}
    assert changed
    states = before.graph.state_dict(), after.graph.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] if name.endswith("_scale"))
    for name in changed:
        # What stands in the graph is those integers times the scale, bit by bit.
        scale = states[1][f"{name}_scale"]
        value = states[1][name]
        assert torch.equal(value, chosen[name] * scale.reshape(-1, *[1] * (value.ndim - 1)))
        assert chosen[name].abs().max() <= 63
    graph = export_portable(after, portable=Portable(), precision="int8", dynamic_batch=False)
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(graph.data).graph.initializer}
    for name, integers in chosen.items():
        assert stored[f"{name}_quantized"].dtype == np.int8
        assert np.array_equal(stored[f"{name}_quantized"], integers.numpy().astype(np.int8))
    session = onnxruntime.InferenceSession(graph.data)
    images = pictures(1, seed=5)
    actual = np.asarray(session.run(None, {"image": images.numpy()})[0])
    expected = after.run(images)[0].numpy()
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 0.03


def test_shared_and_transposed_weights_are_left_alone_with_a_reason() -> None:
    for name, words in (("shared", "is read by"), ("upsampling", "a transposed convolution")):
        floating = folded(name)
        before = quantized(floating)
        after = adapted(floating, before)
        reasons = [item.why for item in after.history[-1].skipped if words in item.why]
        assert len(reasons) == (2 if name == "shared" else 1)
        weight = "twice.0.weight" if name == "shared" else "up.weight"
        assert torch.equal(levels(before)[weight], levels(after)[weight])


def test_what_does_not_help_other_images_is_undone() -> None:
    torch.manual_seed(0)
    floating = raw(nn.Conv2d(3, 8, 1), torch.randn(2, 3, 6, 6))
    images = noise(64, 3, 6, 6)
    # Gray images: errors that cancel in the sum of the channels cost nothing. Every fourth image is coloured.
    gray = images.mean(1, keepdim=True).expand_as(images).clone()
    gray[3::4] = images[3::4] * torch.tensor([1.0, -1.0, 1.0]).reshape(1, 3, 1, 1)
    data = data_of(gray)
    before = coarse(quantized(floating, data=data))
    after = adapted(floating, before, data)
    record = after.history[-1]
    assert record.changed == 0
    assert record.details["gains"][0]["gain_db"] < 0
    assert "undone" in record.skipped[0].why
    assert torch.equal(levels(before)["weight"], levels(after)["weight"])
    # The same layer with gray held-out images is kept: it is the judge that makes the difference.
    gray[3::4] = images[3::4].mean(1, keepdim=True)
    assert adapted(floating, before, data_of(gray)).history[-1].changed == 1


def test_same_programs_and_images_give_the_same_numbers() -> None:
    floating = folded("squeeze-excite")
    program = quantized(floating)
    first, second = (adapted(floating, program).graph.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], value) for name, value in program.graph.state_dict().items())


def test_too_many_weights_a_channel_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.passes.correct.rows.MAX_COLUMNS", 50)
    floating = folded("residual")
    record = adapted(floating, quantized(floating)).history[-1]
    assert [item.why for item in record.skipped if "goes up to 50" in item.why] == [
        "each output channel has 72 weights; adaptive rounding goes up to 50"
    ] * 2


def test_dead_inputs_change_nothing() -> None:
    torch.manual_seed(0)
    floating = raw(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3)), torch.randn(2, 3, 6, 6))
    with torch.no_grad():
        dict(floating.graph.named_parameters())["0.bias"].fill_(-1e3)
    data = data_of(noise(16, 3, 6, 6))
    after = adapted(floating, quantized(floating, data=data), data)
    assert all(bool(value.isfinite().all()) for value in after.graph.parameters())
    assert not any(line["kept"] for line in after.history[-1].details["gains"] if line["layer"] == "2")


def test_nearest_is_no_mode_of_the_pass() -> None:
    with pytest.raises(ConfigError, match="expected adaptive"):
        AdaptRounding(floating=folded("residual"), corrections=replace(OPTIONS, rounding="nearest"), data=DATA)
