"""Models and data as they come: whatever is odd about them, int8 is right, or an error says what and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.calibration import Ranges, Recipe
from edgekit.errors import DataError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.targets import Portable, QuantizeRules
from tests.networks import CONTEXT, conv_bn

RULES = QuantizeRules(activations="uint8-asymmetric")
RECIPE = Recipe(name="test", title="")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def floating(net: nn.Module, *examples: torch.Tensor) -> Program:
    torch.manual_seed(0)
    return run_passes(load_program(net.eval(), task=None, example_inputs=examples), [FoldBatchNorm()], CONTEXT)


def data_of(*inputs: torch.Tensor, size: int = 8, names: bool = False) -> CalibrationData:
    def source() -> Iterator[tuple[torch.Tensor, ...]]:
        return zip(*(item.split(size) for item in inputs), strict=True)

    data = CalibrationData(source=source, count=len(inputs[0]))
    return replace(data, name_of=lambda index: f"photos/{index:03d}.jpg") if names else data


def quantized(program: Program, data: CalibrationData, method: str = "mse") -> Program:
    recipe = replace(RECIPE, ranges=Ranges(method=method))  # type: ignore[arg-type]
    return run_passes(program, [Quantize(rules=RULES, recipe=recipe, data=data)], CONTEXT)


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    return float(10 * torch.log10(reference.square().sum() / (actual - reference).square().sum()))


class Several(nn.Module):
    """Two inputs, three outputs, one of them an input to something else, and a branch that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_bn(3, 8), conv_bn(1, 8)
        self.unused = conv_bn(3, 4)
        self.join = conv_bn(16, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.unused(a)
        x = F.relu(self.join(torch.cat([F.relu(self.left(a)), F.relu(self.right(b))], 1)))
        return x, self.head(x.mean((2, 3))), x.amax((2, 3))


def test_several_inputs_and_outputs_and_an_unused_branch() -> None:
    a, b = draw(24, 3, 12, 12), draw(24, 1, 12, 12, seed=1)
    program = floating(Several(), a[:2], b[:2])
    result = quantized(program, data_of(a, b))
    fresh = draw(8, 3, 12, 12, seed=2), draw(8, 1, 12, 12, seed=3)
    for reference, actual in zip(program.run(*fresh), result.run(*fresh), strict=True):
        assert sqnr_db(reference, actual) > 25
    assert not [name for name, _ in result.graph.named_parameters() if name.startswith("unused")]
    graph = export_portable(result, portable=Portable(), precision="int8", dynamic_batch=False)
    assert set(graph.quantized_layers) == {"left.0", "right.0", "join.0", "head"}


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 8), conv_bn(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.one(x), inplace=True)
        y += self.two(y)
        y.clamp_(0, 4)
        y[:, :2] *= 0.5
        return y.mean((2, 3))


class Constant(nn.Module):
    """A branch that no input reaches, and a parameter that joins as an activation does."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv_bn(3, 8), conv_bn(8, 8), conv_bn(8, 8)
        self.prompt = nn.Parameter(draw(1, 8, 12, 12, seed=7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fixed = F.relu(self.two(self.prompt))
        return self.three(F.relu(self.one(x)) + fixed).mean((2, 3))


@pytest.mark.parametrize("net", [InPlace, Constant])
def test_writes_in_place_and_constant_branches(net: type[nn.Module]) -> None:
    images = draw(24, 3, 12, 12)
    program = floating(net(), images[:2])
    result = quantized(program, data_of(images))
    fresh = draw(8, 3, 12, 12, seed=2)
    assert sqnr_db(program.run(fresh)[0], result.run(fresh)[0]) > 22
    export_portable(result, portable=Portable(), precision="int8", dynamic_batch=True)


class Dead(nn.Module):
    """The second tensor is zero on every image that is not very bright."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        with torch.no_grad():
            assert self.one.bias is not None
            self.one.bias.fill_(-3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.relu(self.one(x))).mean((2, 3))


def test_a_tensor_of_zeros_has_room_for_other_values_and_is_reported() -> None:
    images = 0.1 * draw(24, 3, 12, 12)
    program = floating(Dead(), images[:2])
    result = quantized(program, data_of(images))
    bright = 3 * draw(8, 3, 12, 12, seed=2)
    assert all(bool(item.isfinite().all()) for item in result.run(bright))
    assert sqnr_db(program.run(bright)[0], result.run(bright)[0]) > 5
    (finding,) = [item for item in result.history[-1].details["findings"] if item["what"] == "nothing but zeros"]
    assert finding["where"] == "relu"


@pytest.mark.parametrize("method", ["mse", "search", "percentile", "entropy"])
def test_an_outlier_of_ten_thousand_sigma_in_one_image_ruins_nothing(method: str) -> None:
    images = draw(32, 3, 12, 12)
    program = floating(Several(), images[:2], images[:2, :1])
    images[5, 1, 3, 4] = 1e4
    result = quantized(program, data_of(images, images[:, :1].contiguous(), size=4), method)
    fresh = draw(8, 3, 12, 12, seed=2)
    clean = (fresh, fresh[:, :1].contiguous())
    assert sqnr_db(program.run(*clean)[1], result.run(*clean)[1]) > 20
    where = [item["where"] for item in result.history[-1].details["findings"] if item["what"] == "lone outlier"]
    assert "a" in where


def test_minmax_keeps_the_outlier_and_shows_what_that_costs() -> None:
    images = draw(32, 3, 12, 12)
    program = floating(InPlace(), images[:2])
    images[5, 1, 3, 4] = 1e4
    result = quantized(program, data_of(images, size=4), "minmax")
    fresh = draw(8, 3, 12, 12, seed=2)
    assert sqnr_db(program.run(fresh)[0], result.run(fresh)[0]) < 15


def test_nan_in_an_image_names_the_image_and_the_first_tensor() -> None:
    images = draw(24, 3, 12, 12)
    images[13, 0, 2, 2] = float("nan")
    program = floating(InPlace(), images[:2])
    with pytest.raises(DataError, match=r"photos/013\.jpg: tensor 'x' holds NaN or infinity"):
        quantized(program, data_of(images, names=True))


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.sqrt(self.one(x).abs() - 1e-3)).mean((2, 3))


def test_nan_that_the_network_makes_names_where_it_begins() -> None:
    images = 5 + 0.1 * draw(24, 3, 12, 12)
    program = floating(Root(), images[:2])
    images[17] = 0
    with torch.no_grad():
        program.graph.get_parameter("one.bias").zero_()
    with pytest.raises(DataError, match=r"photos/017\.jpg: tensor 'sqrt' holds NaN or infinity"):
        quantized(program, data_of(images, names=True))


def test_a_program_for_one_image_at_a_time() -> None:
    torch.manual_seed(0)
    exported = torch.export.export(InPlace().eval(), (draw(1, 3, 12, 12),)).module()
    program = run_passes(
        load_program(exported, task=None, example_inputs=(draw(1, 3, 12, 12),)), [FoldBatchNorm()], CONTEXT
    )
    images = draw(16, 3, 12, 12)
    result = quantized(program, data_of(images, size=1))
    assert sqnr_db(program.run(images[:1])[0], result.run(images[:1])[0]) > 20


def test_fitted_and_held_out_images_are_disjoint_and_complete() -> None:
    data = data_of(torch.arange(50.0).view(50, 1), size=8)
    fitted, held_out = (
        torch.cat([batch[0] for batch in part]).flatten().tolist() for part in (data.fit(50), data.held_out(50))
    )
    assert not set(fitted) & set(held_out)
    assert sorted([*fitted, *held_out]) == list(range(50))
    assert len(next(iter(data.fit(10)))[0]) <= 8
    assert sum(len(batch[0]) for batch in data.fit(10)) == 10
    assert sum(len(batch[0]) for batch in data.held_out(7)) == 7
