from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.passes.quantize.observers import BINS, HistogramObserver

values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=5))
def test_every_value_is_counted_near_where_it_is(parts: list[list[float]]) -> None:
    observer = HistogramObserver()
    for part in parts:
        observer.update(torch.tensor(part), where="x")
    everything = torch.tensor([value for part in parts for value in part], dtype=torch.float32).double()
    centers, counts, width = observer.histogram()
    assert counts.sum() == len(everything)
    assert (observer.minimum, observer.maximum) == (float(everything.min()), float(everything.max()))
    # Sorted values and sorted bin centres pair up, half a bin apart at most.
    apart = (torch.repeat_interleave(centers, counts.long()) - everything.sort().values).abs().max()
    assert apart <= width / 2


def test_growing_gives_the_same_histogram_as_seeing_all_at_once() -> None:
    data = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    data[2000] = 300.0
    data[3000] = -700.0
    at_once, streamed, reversed_ = HistogramObserver(), HistogramObserver(), HistogramObserver()
    at_once.update(data, where="x")
    for part in data.split(64):
        streamed.update(part, where="x")
    for part in reversed(data.split(64)):
        reversed_.update(part, where="x")
    for other in (streamed, reversed_):
        assert torch.equal(at_once.histogram()[0], other.histogram()[0])
        assert torch.equal(at_once.histogram()[1], other.histogram()[1])


def test_memory_does_not_grow() -> None:
    observer = HistogramObserver()
    for step in range(50):
        observer.update(torch.randn(1000) * 10**step if step < 6 else torch.randn(1000), where="x")
    assert len(observer.histogram()[0]) <= BINS
    assert sum(item.numel() for item in vars(observer).values() if isinstance(item, torch.Tensor)) == BINS


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_by_name(bad: float) -> None:
    with pytest.raises(DataError, match=r"'conv2d_3' holds NaN or infinity"):
        HistogramObserver().update(torch.tensor([1.0, bad]), where="conv2d_3")


@pytest.mark.parametrize("constant", [0.0, 3.0, -2e-6])
def test_a_constant_tensor_has_one_bin(constant: float) -> None:
    observer = HistogramObserver()
    observer.update(torch.full((10,), constant), where="x")
    centers, counts, _ = observer.histogram()
    assert counts.tolist() == [10.0]
    assert abs(float(centers[0]) - constant) <= max(abs(constant), 1.0) / 100
