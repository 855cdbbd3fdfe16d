from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.passes.quantize.observers import Histogram

values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50)


def filled(*parts: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.update(part.float().reshape(1, -1))
    return histogram


def same(one: Histogram, other: Histogram) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.buckets(), other.buckets(), strict=True))


@settings(max_examples=80, deadline=None)
@given(st.lists(values, min_size=1, max_size=5))
def test_every_value_is_counted_where_it_is(parts: list[list[float]]) -> None:
    histogram = filled(*(torch.tensor(part) for part in parts))
    everything = torch.tensor([value for part in parts for value in part], dtype=torch.float32).double().sort().values
    lower, upper, counts = histogram.buckets()
    assert int(counts.sum()) == int(histogram.total) == len(everything)
    assert (float(histogram.minimum), float(histogram.maximum)) == (float(everything[0]), float(everything[-1]))
    assert bool((lower[1:] >= upper[:-1]).all())
    peak = float(everything.abs().max())
    # Sorted values and sorted buckets pair up: each is inside its own, or so small that it counts as zero.
    below, above = (torch.repeat_interleave(edge, counts.long()) for edge in (lower, upper))
    inside = (below <= everything) & (everything <= above)
    assert bool((inside | (everything.abs() <= peak * 2.0**-31)).all())
    assert bool(((upper - lower) <= torch.maximum(lower.abs(), upper.abs()) / 512 + 1e-37).all())


def test_order_and_grouping_do_not_matter() -> None:
    data = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    data[2000], data[3000] = 3e7, -7e5
    at_once, streamed, backwards = filled(data), filled(*data.split(64)), filled(*reversed(data.split(64)))
    assert same(at_once, streamed)
    assert same(at_once, backwards)


def test_merging_is_seeing_both() -> None:
    generator = torch.Generator().manual_seed(1)
    small, large = torch.randn(1000, generator=generator), 1e5 * torch.randn(1000, generator=generator)
    for first, second in ((small, large), (large, small)):
        merged = filled(first)
        merged.merge(filled(second))
        assert same(merged, filled(first, second))
        assert (merged.minimum, merged.maximum) == (filled(large).minimum, filled(large).maximum)


def test_merging_into_an_empty_one_is_a_copy_that_stands_alone() -> None:
    full, empty = filled(torch.arange(10.0)), Histogram()
    empty.merge(full)
    full.update(torch.full((1, 5), 3.0))
    assert int(empty.total) == 10


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    histogram = Histogram()
    sizes = []
    for step in range(30):
        histogram.update(torch.randn(1, 1000) * 10.0**step)
        sizes.append(sum(item.numel() for item in vars(histogram).values() if isinstance(item, torch.Tensor)))
    assert len(set(sizes)) == 1
    assert int(histogram.total) == 30_000


def test_an_outlier_costs_the_rest_no_resolution() -> None:
    data = torch.rand(10_000, generator=torch.Generator().manual_seed(2)) + 1
    alone, beside = filled(data), filled(data, torch.tensor([1e5]))
    assert torch.equal(alone.buckets()[2], beside.buckets()[2][:-1])


def test_counts_between_edges_are_those_of_the_values() -> None:
    data = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    edges = torch.linspace(-5, 5, 41, dtype=torch.float64)
    expected = torch.histogram(data.double(), bins=edges).hist
    found = filled(data).spread(edges)
    assert int(found.sum().round()) == 100_000
    assert float((found - expected).abs().max()) < 0.01 * 100_000 / 8


def test_rows_are_histograms_of_their_own() -> None:
    data = torch.randn((3, 500), generator=torch.Generator().manual_seed(4)) * torch.tensor([[1.0], [1e3], [1e-4]])
    together = Histogram(3, mantissa_bits=7, octaves=24)
    together.update(data)
    for row in range(3):
        alone = Histogram(1, mantissa_bits=7, octaves=24)
        alone.update(data[row : row + 1])
        assert all(torch.equal(a, b) for a, b in zip(together.buckets(row), alone.buckets(), strict=True))


def test_share_outside() -> None:
    assert filled(torch.tensor([-5.0, 0, 0, 1, 2, 3, 9, 10])).share_outside(-1, 4) == 3 / 8
