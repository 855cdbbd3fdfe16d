from __future__ import annotations

import pytest
import torch

from edgekit.passes.quantize.weights import weight_grid


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


@pytest.mark.parametrize("axis", [0, 1])
def test_mse_clips_the_channel_that_gains_by_it_and_no_other(axis: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((2, 20000), generator=generator)
    weight[0, 0] = 8.0  # one value far out: with 63 levels the rest gains by clipping it
    weight[1] = torch.rand(20000, generator=generator) - 0.5
    shaped = weight if axis == 0 else weight.T.contiguous()
    plain, clipped = (weight_grid(shaped, axis=axis, bits=7, method=method) for method in ("minmax", "mse"))  # type: ignore[arg-type]
    errors = [(grid.rounded(shaped) - shaped).square().sum(1 - axis).tolist() for grid in (plain, clipped)]
    assert errors[1][0] < 0.9 * errors[0][0]
    assert float(clipped.scale[1]) > 0.95 * float(plain.scale[1])
