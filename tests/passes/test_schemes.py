from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.passes.quantize.observers import HistogramObserver
from edgekit.passes.quantize.schemes import Grid, Role, activation_grid, weight_grid


def observed(values: torch.Tensor) -> HistogramObserver:
    observer = HistogramObserver()
    observer.update(values, where="x")
    return observer


def rounded(values: torch.Tensor, grid: Grid) -> torch.Tensor:
    level = torch.clamp(torch.round(values / grid.scale) + grid.zero_point.float(), grid.qmin, grid.qmax)
    return (level - grid.zero_point.float()) * grid.scale


SCHEMES = [
    ("conv", "uint8-asymmetric", torch.uint8),
    ("linear", "uint8-asymmetric", torch.int8),
    ("conv", "int8-symmetric", torch.int8),
    ("linear", "int8-symmetric", torch.int8),
]


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(0.01, 100), st.sampled_from(SCHEMES))
def test_minmax_rounds_every_seen_value_by_at_most_half_a_step(
    low: float, width: float, scheme: tuple[Role, str, torch.dtype]
) -> None:
    values = low + width * torch.rand(200, generator=torch.Generator().manual_seed(0))
    grid = activation_grid(observed(values), role=scheme[0], activations=scheme[1], method="minmax")  # type: ignore[arg-type]
    # The zero-point rounds too, so a value at the border may miss the grid by half a step more.
    assert (rounded(values, grid) - values).abs().max() <= float(grid.scale) * 1.01
    assert grid.limits()[0] <= 0 <= grid.limits()[1]
    assert float(rounded(torch.zeros(1), grid)) == 0.0


@pytest.mark.parametrize(("role", "activations", "dtype"), SCHEMES)
def test_integers_are_those_that_the_kernels_want(role: Role, activations: str, dtype: torch.dtype) -> None:
    grid = activation_grid(observed(torch.tensor([-1.0, 3.0])), role=role, activations=activations, method="minmax")  # type: ignore[arg-type]
    assert grid.zero_point.dtype == dtype
    if dtype == torch.int8:
        assert int(grid.zero_point) == 0


def test_a_linear_without_negative_input_gets_all_of_uint8() -> None:
    grid = activation_grid(
        observed(torch.tensor([0.0, 2.55])), role="linear", activations="uint8-asymmetric", method="minmax"
    )
    assert (grid.zero_point.dtype, int(grid.zero_point)) == (torch.uint8, 0)
    assert float(grid.scale) == pytest.approx(0.01)


@pytest.mark.parametrize(("role", "activations", "dtype"), SCHEMES)
def test_mse_clips_a_rare_outlier_and_leaves_a_flat_range_alone(
    role: Role, activations: str, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    outlier = torch.randn(1_000_000, generator=generator)
    outlier[0] = 12.0
    flat = torch.rand(60_000, generator=generator) - 0.5
    for values, least, most in ((outlier, 0.0, 0.7), (flat, 0.98, 1.001)):
        observer = HistogramObserver()
        for part in values.split(50_000):
            observer.update(part, where="x")
        errors = {}
        for method in ("minmax", "mse"):
            grid = activation_grid(observer, role=role, activations=activations, method=method)  # type: ignore[arg-type]
            errors[method] = float(((rounded(values, grid) - values) ** 2).mean())
        assert least <= errors["mse"] / errors["minmax"] <= most


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (7, 63)])
def test_weights_are_symmetric_per_channel_within_their_bits(bits: int, limit: int) -> None:
    weight = torch.randn(6, 3, 3, 3) * torch.tensor([1e-3, 0.1, 1, 10, 100, 0]).view(-1, 1, 1, 1)
    grid = weight_grid(weight, axis=0, bits=bits)  # type: ignore[arg-type]
    level = torch.round(weight / grid.scale.view(-1, 1, 1, 1))
    assert (grid.qmin, grid.qmax) == (-limit, limit)
    assert level.abs().amax((1, 2, 3))[:5].tolist() == [limit] * 5
    assert level[5].abs().max() == 0
    assert grid.zero_point.tolist() == [0] * 6


def test_transposed_convolutions_have_their_channels_on_axis_one() -> None:
    weight = torch.ones(2, 3, 1, 1) * torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert weight_grid(weight, axis=1, bits=8).scale.tolist() == pytest.approx([1 / 127, 2 / 127, 4 / 127])
