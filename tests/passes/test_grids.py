from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.passes.quantize.grids import Role, activation_form, make_grid

SCHEMES = [
    ("conv", "uint8-asymmetric", torch.uint8),
    ("linear", "uint8-asymmetric", torch.int8),
    ("conv", "int8-symmetric", torch.int8),
    ("linear", "int8-symmetric", torch.int8),
]


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(0.01, 100), st.sampled_from(SCHEMES))
def test_a_grid_rounds_every_value_of_its_range_by_at_most_half_a_step(
    low: float, width: float, scheme: tuple[Role, str, torch.dtype]
) -> None:
    values = low + width * torch.rand(200, generator=torch.Generator().manual_seed(0))
    form = activation_form(float(values.min()), role=scheme[0], activations=scheme[1])  # type: ignore[arg-type]
    grid = make_grid(values.min(), values.max(), form)
    rounded = grid.rounded(values)
    # The zero-point rounds too, so a value at the border may miss the grid by half a step more.
    assert (rounded - values).abs().max() <= float(grid.scale) * 1.01
    assert grid.limits()[0] <= 0 <= grid.limits()[1]
    assert float(grid.rounded(torch.zeros(1))) == 0.0


@pytest.mark.parametrize(("role", "activations", "dtype"), SCHEMES)
def test_integers_are_those_that_the_kernels_want(role: Role, activations: str, dtype: torch.dtype) -> None:
    form = activation_form(-1.0, role=role, activations=activations)  # type: ignore[arg-type]
    grid = make_grid(torch.tensor(-1.0), torch.tensor(3.0), form)
    assert grid.zero_point.dtype == dtype
    if dtype == torch.int8:
        assert int(grid.zero_point) == 0


def test_a_linear_without_negative_input_gets_all_of_uint8() -> None:
    grid = make_grid(
        torch.tensor(0.0), torch.tensor(2.55), activation_form(0.0, role="linear", activations="uint8-asymmetric")
    )
    assert (grid.zero_point.dtype, int(grid.zero_point)) == (torch.uint8, 0)
    assert float(grid.scale) == pytest.approx(0.01)


@pytest.mark.parametrize("activations", ["uint8-asymmetric", "int8-symmetric"])
def test_a_range_of_zeros_leaves_room_for_what_calibration_never_saw(activations: str) -> None:
    form = activation_form(0.0, role="conv", activations=activations)  # type: ignore[arg-type]
    grid = make_grid(torch.tensor(0.0), torch.tensor(0.0), form)
    assert grid.limits()[1] == pytest.approx(1.0)
    assert float(grid.rounded(torch.tensor(0.7))) == pytest.approx(0.7, abs=0.01)
