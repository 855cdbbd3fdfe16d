from __future__ import annotations

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.runtime.resample import Filter, Span, resample

FILTERS: tuple[Filter, ...] = ("nearest", "bilinear", "bicubic", "lanczos")
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def pillow_resized(frame: np.ndarray, size: tuple[int, int], filter: Filter) -> np.ndarray:
    """Returns what Pillow 13 makes of a frame; ``size`` is height, width.

    Older ones always resize across first. On a frame that loses more than twice as many rows as columns they are asked
    for one axis at a time, down first, which is what Pillow 13 does there.
    """
    image = Image.fromarray(frame)
    fewer_rows = frame.shape[0] - size[0]
    if int(PIL.__version__.split(".")[0]) < 13 and fewer_rows > 0 and fewer_rows > 2 * (frame.shape[1] - size[1]):
        image = image.resize((frame.shape[1], size[0]), PILLOW[filter])
    return np.asarray(image.resize(size[::-1], PILLOW[filter]))


def whole(source: int, target: int) -> Span:
    return Span(source=source, target=target, start=0, stop=target)


def noise(shape: tuple[int, ...], seed: int, *, extreme: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.where(values > 127, 255, 0).astype(np.uint8) if extreme else values


side = st.integers(1, 150)


@given(side, side, side, side, st.sampled_from(FILTERS), st.integers(0, 1000), st.booleans())
def test_8_bit_images_are_pillows(h: int, w: int, th: int, tw: int, filter: Filter, seed: int, extreme: bool) -> None:
    frame = noise((h, w, 3), seed, extreme=extreme)
    expected = pillow_resized(frame, (th, tw), filter)
    actual = resample(frame, rows=whole(h, th), columns=whole(w, tw), filter=filter)
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(
    ("source", "target"),
    [((480, 640), (224, 224)), ((1000, 20), (10, 20)), ((30, 700), (32, 33)), ((64, 64), (64, 31)), ((5, 5), (224, 3))],
)
def test_ordinary_and_odd_sizes(source: tuple[int, int], target: tuple[int, int], filter: Filter) -> None:
    frame = noise(source, 1)
    expected = pillow_resized(frame, target, filter)
    rows, columns = whole(source[0], target[0]), whole(source[1], target[1])
    np.testing.assert_array_equal(resample(frame, rows=rows, columns=columns, filter=filter), expected)


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos"])
def test_float_images_are_pillows_to_rounding(filter: Filter) -> None:
    frame = np.random.default_rng(2).normal(size=(40, 57)).astype(np.float32)
    expected = pillow_resized(frame, (61, 23), filter)
    actual = resample(frame, rows=whole(40, 61), columns=whole(57, 23), filter=filter)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_16_bit_images_are_pillows_within_one() -> None:
    frame = np.random.default_rng(3).integers(0, 65536, (33, 50), dtype=np.uint16)
    # Pillow wraps at 65,535 where a filter overshoots, so the triangle, which cannot.
    expected = pillow_resized(frame, (70, 20), "bilinear")
    actual = resample(frame, rows=whole(33, 70), columns=whole(50, 20), filter="bilinear")
    assert actual.dtype == np.uint16
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


def test_overshoot_is_clipped() -> None:
    frame = np.zeros((1, 20), np.uint16)
    frame[:, 10:] = 65535
    actual = resample(frame, rows=whole(1, 1), columns=whole(20, 60), filter="bicubic")
    assert np.all(np.diff(actual[0].astype(int)) >= 0)
    assert (actual.min(), actual.max()) == (0, 65535)


@given(side, side, side, side, st.sampled_from(FILTERS), st.data())
def test_a_window_is_a_part_of_the_whole(h: int, w: int, th: int, tw: int, filter: Filter, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, th - 1)), data.draw(st.integers(0, tw - 1))
    bottom, right = data.draw(st.integers(top + 1, th)), data.draw(st.integers(left + 1, tw))
    frame = noise((h, w), 4)
    full = resample(frame, rows=whole(h, th), columns=whole(w, tw), filter=filter)
    part = resample(
        frame,
        rows=Span(source=h, target=th, start=top, stop=bottom),
        columns=Span(source=w, target=tw, start=left, stop=right),
        filter=filter,
    )
    np.testing.assert_array_equal(part, full[top:bottom, left:right])
