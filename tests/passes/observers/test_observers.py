"""What every observer must do, and what each of them is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgekit.calibration import Ranges
from edgekit.errors import DataError
from edgekit.passes.quantize.grids import ASYMMETRIC, SIGNED, UNSIGNED, Form, make_grid
from edgekit.passes.quantize.observers import (
    EntropyObserver,
    MinMaxObserver,
    MseObserver,
    Observer,
    PercentileObserver,
    SearchObserver,
    make_observer,
)
from edgekit.passes.quantize.observers.entropy import best_bins

KINDS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMaxObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MseObserver,
    "search": SearchObserver,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_form = pytest.mark.parametrize("form", [ASYMMETRIC, UNSIGNED, SIGNED], ids=["asymmetric", "unsigned", "signed"])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def watched(kind: str, *parts: torch.Tensor) -> Observer:
    observer = KINDS[kind]()
    for part in parts:
        observer.update(part)
    return observer


def error(values: torch.Tensor, observer: Observer, form: Form) -> float:
    grid = make_grid(*observer.limits(form), form)
    return float((grid.rounded(values) - values).square().mean())


@every_kind
def test_recipes_name_every_kind(kind: str) -> None:
    assert type(make_observer(Ranges(method=kind))) is KINDS[kind]  # type: ignore[arg-type]


@every_kind
@every_form
def test_the_range_includes_zero_and_stays_within_what_was_seen(kind: str, form: Form) -> None:
    for values in (normal(5000), normal(5000).abs() + 3, -normal(5000).abs() - 3):
        low, high = (float(item) for item in watched(kind, values).limits(form))
        assert min(float(values.min()), 0) <= low <= 0 <= high <= max(float(values.max()), 0)


@every_kind
def test_streaming_does_not_change_the_range(kind: str) -> None:
    values = normal(8192)
    at_once, streamed = watched(kind, values), watched(kind, *values.split(128))
    merged = watched(kind, values[:3000])
    merged.merge(watched(kind, values[3000:]))
    for other in (streamed, merged):
        assert at_once.limits(ASYMMETRIC) == other.limits(ASYMMETRIC)


@every_kind
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(kind: str, bad: float) -> None:
    with pytest.raises(DataError, match="NaN or infinity"):
        watched(kind, torch.tensor([1.0, bad]))


@every_kind
@pytest.mark.parametrize("constant", [0.0, 3.0, -2e-6, 1e30])
def test_a_constant_tensor_has_a_grid_that_holds_it(kind: str, constant: float) -> None:
    observer = watched(kind, torch.full((100,), constant))
    form = ASYMMETRIC
    grid = make_grid(*observer.limits(form), form)
    value = float(grid.rounded(torch.tensor(constant)))
    assert value == pytest.approx(constant, rel=0.01)
    assert float(grid.scale) > 0


@every_kind
def test_nothing_seen_is_the_range_of_zeros(kind: str) -> None:
    assert [float(item) for item in KINDS[kind]().limits(SIGNED)] == [0.0, 0.0]


@every_kind
def test_channels_have_ranges_of_their_own(kind: str) -> None:
    factors = torch.tensor([1.0, 10.0, 1000.0]).view(1, 3, 1, 1)
    observer = type(KINDS[kind]())(axis=1)  # type: ignore[call-arg]
    observer.update(normal(4, 3, 16, 16) * factors)
    low, high = observer.limits(SIGNED)
    assert low.shape == high.shape == (3,)
    assert torch.allclose(high / factors.flatten().double(), high[:1].expand(3), rtol=0.5)
    alone = KINDS["minmax"]()
    alone.update(normal(4, 3, 16, 16)[:, 1] * 10)
    assert float(high[1]) <= float(alone.observed[1])


@every_kind
def test_channels_last_is_no_other_tensor(kind: str) -> None:
    values = normal(2, 8, 12, 12)
    turned = values.contiguous(memory_format=torch.channels_last)
    assert watched(kind, values).limits(ASYMMETRIC) == watched(kind, turned).limits(ASYMMETRIC)


def test_minimum_and_maximum_are_exact_however_large_the_tensor_is() -> None:
    values = normal(3, 500_001)
    values[2, 250_000], values[0, 123_457] = 40.0, -50.0
    low, high = watched("minmax", values).limits(ASYMMETRIC)
    assert (float(low), float(high)) == (-50.0, 40.0)


def test_percentile_keeps_its_share() -> None:
    values = torch.rand(60_000, generator=torch.Generator().manual_seed(0))
    observer = PercentileObserver(percentile=90)
    observer.update(values)
    assert float(observer.limits(UNSIGNED)[1]) == pytest.approx(0.9, abs=0.01)


@every_form
def test_mse_is_at_least_as_near_as_any_other_way_and_as_a_search_over_the_values_themselves(form: Form) -> None:
    # Heavy tails: where clipping pays.
    values = normal(20_000) * normal(20_000, seed=1).exp()
    values = values.abs() if form is UNSIGNED else values
    ours = error(values, watched("mse", values), form)
    for kind in ("minmax", "percentile", "entropy"):
        assert ours <= error(values, watched(kind, values), form) * 1.02
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    shares = torch.linspace(0.05, 1, 40).tolist()
    exhaustive = min(
        float((grid.rounded(values) - values).square().mean())
        for a in (shares if low < 0 and form is ASYMMETRIC else [1.0])
        for b in shares
        for grid in [make_grid(torch.tensor(low * (a if form is ASYMMETRIC else b)), torch.tensor(high * b), form)]
    )
    assert ours <= exhaustive * 1.05


def test_mse_does_not_clip_for_nothing() -> None:
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    assert float(watched("mse", values).limits(UNSIGNED)[1]) == float(values.max())


def test_mse_leaves_out_an_outlier_so_large_that_beside_it_all_else_rounds_to_zero() -> None:
    usual = normal(65_536)
    # So often that the bulk's error outweighs the outlier's: 300 x 65,536 values of size 1 against one of 2,500.
    observer = watched("mse", *[usual] * 300, torch.tensor([2500.0]))
    assert float(observer.limits(SIGNED)[1]) < 100


def test_entropy_cuts_a_long_thin_tail() -> None:
    values = torch.cat([normal(60_000).abs(), torch.linspace(5, 100, 20)])
    high = float(watched("entropy", values).limits(UNSIGNED)[1])
    assert 3 < high < 30


def test_entropy_keeps_all_that_the_integers_can_hold() -> None:
    assert best_bins(torch.ones(256, dtype=torch.float64), 256) == 256
    # With all weight in the first bins, what lies beyond is worth no resolution.
    counts = torch.ones(2048, dtype=torch.float64) * 1e-3
    counts[:256] = torch.rand(256, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e6
    assert best_bins(counts, 128) < 600


def test_search_offers_what_the_others_choose() -> None:
    values = normal(20_000) * normal(20_000, seed=1).exp()
    observer = watched("search", values)
    assert isinstance(observer, SearchObserver)
    found = observer.candidates(SIGNED)
    for kind, limits in found.items():
        assert limits == watched(kind, values).limits(SIGNED)
    assert "mse" in found
    assert observer.limits(SIGNED) == found["mse"]
