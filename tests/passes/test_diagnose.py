from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from edgekit.config import to_dict
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.aten import read_tensor
from edgekit.passes.correct.lockstep import int8_layers
from edgekit.passes.diagnose import Diagnosis, diagnose
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import SilentProgress
from tests.networks import CONTEXT, NETWORKS, batches, folded, pictures, spec
from tests.passes.pairs import DATA, RULES_7, RULES_8, quantized, sqnr_db, two_streams


def diagnosed(floating: Program, program: Program, data: CalibrationData = DATA, limit: int = 8) -> Diagnosis:
    return diagnose(floating, program, data, limit=limit, progress=SilentProgress())


class Chain(nn.Module):
    """Layers of several kinds, one after the other, each followed by a ReLU; the last with a shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, 16, 3, padding=1),
                nn.Conv2d(16, 16, 1),
                nn.Conv2d(16, 16, 3, padding=1, groups=16),
                nn.Conv2d(16, 16, 1),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.Conv2d(16, 16, 3, padding=1, groups=4),
                nn.Conv2d(16, 16, 3, padding=1),
            ]
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, layer in enumerate(self.layers):
            y = torch.relu(layer(x))
            x = x + y if number == 6 else y
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def chain() -> Program:
    torch.manual_seed(0)
    module = Chain().eval()
    for layer in module.layers:
        # As large as the image makes them, not as the biases do.
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return run_passes(load_program(module, task=spec()), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)


def break_layer(program: Program, number: int) -> Program:
    """One layer's output channels scaled by 1 to 1,000, and the weights of the next divided by as much."""
    program = program.copied()
    weights = dict(program.graph.named_parameters())
    torch.manual_seed(number)
    factor = 1000 ** torch.linspace(0, 1, 16)[torch.randperm(16)]
    after = weights[f"layers.{number + 1}.weight"]
    groups = 16 // after.shape[1]
    with torch.no_grad():
        weights[f"layers.{number}.weight"] *= factor[:, None, None, None]
        weights[f"layers.{number}.bias"] *= factor
        after /= factor.reshape(groups, 1, -1).expand(-1, 16 // groups, -1).reshape(16, -1)[:, :, None, None]
    return program


@pytest.mark.parametrize("broken", range(5))
@pytest.mark.parametrize("rules", [RULES_7, RULES_8], ids=["7 bits", "8 bits"])
def test_the_layer_whose_channels_were_scaled_is_named_first(chain: Program, broken: int, rules: object) -> None:
    floating = break_layer(chain, broken)
    images = pictures(4)
    assert sqnr_db(chain.run(images)[0], floating.run(images)[0]) > 80  # the same network in float
    healthy = diagnosed(chain, quantized(chain, rules=rules))  # type: ignore[arg-type]
    found = diagnosed(floating, quantized(floating, rules=rules))  # type: ignore[arg-type]
    assert found.outputs[0].sqnr_db < healthy.outputs[0].sqnr_db - 10  # type: ignore[operator]
    worst, second = found.worst_first[:2]
    assert (worst.name, worst.rank) == (f"layers.{broken}", 1)
    # It stands far out, although it is the next layer whose output is wrong.
    assert worst.blame_sqnr_db < second.blame_sqnr_db - 10  # type: ignore[operator]
    own = {layer.name: layer.own_sqnr_db for layer in found.layers}
    # All noise there is put down to the broken layer: that of the tensor, and that of the weights that go with it.
    assert worst.blame_sqnr_db == pytest.approx(own[f"layers.{broken + 1}"], abs=2)
    assert min(own, key=lambda name: own[name]) == f"layers.{broken + 1}"  # type: ignore[arg-type, return-value]


def test_a_weight_that_its_grid_does_not_fit_is_its_own_layers_fault(chain: Program) -> None:
    floating = chain.copied()
    with torch.no_grad():
        # One weight of each output channel is far larger than the others: their integers are mostly zero.
        dict(floating.graph.named_parameters())["layers.4.weight"][:, 0, 0, 0] = 30
    found = diagnosed(floating, quantized(floating))
    assert found.worst_first[0].name == "layers.4"
    assert found.worst_first[0].weight_sqnr_db < found.worst_first[0].input_sqnr_db  # type: ignore[operator]


def test_ratios_are_those_of_the_definition() -> None:
    floating = folded("residual")
    program = quantized(floating)
    found = diagnosed(floating, program)
    images = torch.cat([batch for (batch,) in DATA.held_out(8)])
    assert found.images == len(images) == 8
    expected = sqnr_db(floating.run(images)[0].double(), program.run(images)[0].double())
    assert found.outputs[0].sqnr_db == pytest.approx(expected, abs=0.01)
    # The last layer's own noise: the float program with this layer alone quantized.
    last = found.layers[-1]
    alone = floating.copied()
    (layer,) = [node for node in alone.graph.graph.nodes if node.name == last.node]
    twin = int8_layers(program.graph)[-1]
    pairs = []
    for index in (0, 1):
        pair = twin.args[index]
        inputs = [read_tensor(program.graph, item) for item in pair.args[1:3]]
        for number, value in enumerate(inputs):
            alone.graph.register_buffer(f"extra_{index}_{number}", value)
        with alone.graph.graph.inserting_before(layer):
            extra = [alone.graph.graph.get_attr(f"extra_{index}_{number}") for number in range(2)]
            pairs.append(alone.graph.graph.call_function(pair.target, (layer.args[index], *extra, *pair.args[3:])))
    layer.args = (*pairs, *layer.args[2:])
    alone.graph.recompile()
    expected = sqnr_db(floating.run(images)[0].double(), alone.run(images)[0].double())
    assert last.own_sqnr_db == pytest.approx(expected, abs=0.01)
    assert last.accumulated_sqnr_db == pytest.approx(found.outputs[0].sqnr_db, abs=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_compute_layer_is_there_and_all_is_plain_data(name: str) -> None:
    floating = folded(name)
    program = quantized(floating)
    found = diagnosed(floating, program)
    rows = {layer.node: layer for layer in found.layers}
    int8 = {node.name for node in int8_layers(program.graph)}
    assert int8 <= {node for node, row in rows.items() if row.precision == "int8"}
    for row in found.layers:
        if row.precision == "int8":
            assert row.reason == ""
            assert math.isfinite(row.own_sqnr_db)  # type: ignore[arg-type]
            assert row.own_sqnr_db > 20  # type: ignore[operator]
        else:
            assert row.reason != ""
            assert row.own_sqnr_db is None
    ranks = [row.rank for row in found.worst_first]
    assert ranks == list(range(1, len(ranks) + 1))
    assert int8 <= {row.node for row in found.worst_first}
    assert json.loads(json.dumps(to_dict(found), allow_nan=False))["layers"][0]["name"] == found.layers[0].name


def test_a_gate_is_not_blamed_for_the_tensor_that_it_gates() -> None:
    floating = folded("squeeze-excite")
    with torch.no_grad():
        # A tensor with one huge value: its grid leaves little for the rest.
        dict(floating.graph.named_parameters())["stem.0.weight"][0] *= 300
    found = diagnosed(floating, quantized(floating))
    assert found.worst_first[0].name == "stem.0"


def test_behind_a_layer_norm_the_reader_is_named_not_the_layer_before() -> None:
    floating = folded("attention")
    weights = dict(floating.graph.named_parameters())
    factor = 1000 ** torch.linspace(0, 1, 16)
    with torch.no_grad():
        weights["norm.weight"] *= factor
        weights["norm.bias"] *= factor
        weights["qkv.weight"] /= factor
    assert diagnosed(floating, quantized(floating)).worst_first[0].name == "qkv"


def test_several_inputs_and_outputs_with_a_static_batch() -> None:
    floating, data = two_streams(1)
    program = quantized(floating, data=data)
    found = diagnosed(floating, program, data, limit=4)
    assert found.images == 4
    assert [item.name for item in found.outputs] == [spec.name for spec in program.outputs]
    assert all(item.sqnr_db is not None and item.sqnr_db > 20 for item in found.outputs)


def test_fewer_than_four_images_are_used_all() -> None:
    floating = folded("residual")
    data = CalibrationData(source=lambda: batches(3), count=3)
    assert diagnosed(floating, quantized(floating, data=data), data).images == 3


def test_a_layer_without_noise_has_no_ratio_and_no_rank() -> None:
    floating = folded("residual")
    with torch.no_grad():
        for name, value in floating.graph.named_parameters():
            if "two" in name:
                value.zero_()
    found = {layer.name: layer for layer in diagnosed(floating, quantized(floating)).layers}
    assert found["two.0"].own_sqnr_db is None
    assert found["two.0"].accumulated_sqnr_db is None


def test_same_images_give_the_same_numbers() -> None:
    floating = folded("attention")
    program = quantized(floating)
    assert diagnosed(floating, program) == diagnosed(floating, program)


def test_a_pair_above_a_split_is_followed_through_it() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.halves = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = torch.relu(self.stem(x)).chunk(2, 1)
            x = torch.cat([layer(part) for layer, part in zip(self.halves, parts, strict=True)], 1)
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    floating = run_passes(load_program(Split().eval(), task=spec()), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)
    layers = diagnosed(floating, quantized(floating)).layers
    assert {item.node: item.precision for item in layers} == dict.fromkeys(
        ("stem", "halves_0", "halves_1", "head"), "int8"
    )
