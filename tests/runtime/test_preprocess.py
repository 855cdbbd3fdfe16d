from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import ConfigError, UserError
from edgekit.runtime.preprocess import resize_frame, resize_geometry
from edgekit.runtime.tasks.base import ImageInput
from tests.runtime.test_resample import pillow_resized

side = st.integers(1, 400)


def image_input(height: int = 32, width: int = 32, **keys: Any) -> ImageInput:
    if keys.get("channels") == 1:
        keys = {"color": "gray", "mean": (0.0,), "std": (1.0,), **keys}
    return ImageInput(size=(height, width), **keys)


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    top = {"uint8": 256, "uint16": 65536, "float32": 1}[dtype]
    return (np.random.default_rng(seed).random(shape) * top).astype(dtype)


def torchvision_crop(frame: np.ndarray, resize: int, size: int) -> np.ndarray:
    """``Compose([Resize(resize), CenterCrop(size)])`` on a Pillow image, by torchvision's own formulas."""
    h, w = frame.shape[:2]
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = resize, int(resize * long / short)
    new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    resized = pillow_resized(frame, (new_h, new_w), "bilinear")
    top, left = round((new_h - size) / 2.0), round((new_w - size) / 2.0)
    return resized[top : top + size, left : left + size]


@given(st.integers(20, 300), st.integers(20, 300))
def test_crop_is_torchvisions(h: int, w: int) -> None:
    frame = noise(h, w, 3)
    spec = image_input(28, 28, resize="crop", crop_fraction=0.875, antialias=True)
    np.testing.assert_array_equal(resize_frame(frame, spec), torchvision_crop(frame, 32, 28))


@pytest.mark.parametrize(
    ("size", "fraction", "resized"),
    [
        (224, 0.875, 256),
        (224, 224 / 232, 232),
        (224, 0.9655, 232),
        (288, 0.95, 303),
        (299, 0.875, 341),
        (224, 1.0, 224),
    ],
)
def test_crop_fraction_gives_the_habitual_sizes(size: int, fraction: float, resized: int) -> None:
    spec = image_input(size, size, resize="crop", crop_fraction=fraction)
    assert resize_geometry((480, 640, 3), spec).resized == (resized, resized * 640 // 480)


@given(side, side, st.integers(1, 64), st.integers(1, 64), st.floats(0.3, 1.0))
def test_crop_always_covers_the_size(h: int, w: int, th: int, tw: int, fraction: float) -> None:
    spec = image_input(th, tw, resize="crop", crop_fraction=fraction)
    geometry = resize_geometry((h, w), spec)
    assert geometry.resized[0] >= th
    assert geometry.resized[1] >= tw
    assert all(
        0 <= -offset <= resized - size
        for offset, resized, size in zip(geometry.offset, geometry.resized, geometry.size, strict=True)
    )


@given(side, side, st.sampled_from(["stretch", "crop", "letterbox"]), st.booleans(), st.sampled_from([1, 3]))
def test_any_frame_comes_out_at_the_models_size(
    h: int, w: int, resize: Literal["stretch", "crop", "letterbox"], antialias: bool, channels: Literal[1, 3]
) -> None:
    spec = image_input(17, 23, resize=resize, antialias=antialias, channels=channels)
    for frame in (noise(h, w, 3), noise(h, w), noise(h, w, 1)):
        out = resize_frame(frame, spec)
        assert (out.shape, out.dtype, out.flags.c_contiguous) == ((17, 23, channels), np.uint8, True)


def test_letterbox_keeps_the_shape_and_fills_the_border() -> None:
    spec = image_input(40, 40, resize="letterbox", pad_value=7)
    out = resize_frame(np.full((20, 10, 3), 200, np.uint8), spec)
    assert np.all(out[:, 10:30] == 200)
    assert np.all(out[:, :10] == 7)
    assert np.all(out[:, 30:] == 7)


@given(side, side, st.sampled_from(["stretch", "crop", "letterbox"]))
def test_geometry_maps_back(h: int, w: int, resize: Literal["stretch", "crop", "letterbox"]) -> None:
    geometry = resize_geometry((h, w, 3), image_input(48, 64, resize=resize))
    corners = np.array([[0, 0], [w, 0], [w, h], [w / 3, h / 7]], np.float64)
    there = corners * np.array(geometry.scale[::-1]) + np.array(geometry.offset[::-1])
    np.testing.assert_allclose(geometry.to_frame(there), corners, atol=1e-3)


def test_geometry_agrees_with_the_pixels() -> None:
    frame = np.zeros((300, 200, 3), np.uint8)
    frame[150:180, 50:100] = 255
    spec = image_input(96, 96, resize="letterbox", pad_value=0)
    rows, columns = np.nonzero(resize_frame(frame, spec)[..., 0] > 127)
    box = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    back = resize_geometry(frame.shape, spec).to_frame(box)
    np.testing.assert_allclose(back, [[50, 150], [100, 180]], atol=2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
def test_without_antialias_the_pixels_are_opencvs(dtype: Any, name: Any, flag: int) -> None:
    frame = noise(50, 70, 3, dtype=dtype)
    out = resize_frame(frame, image_input(dtype=dtype, interpolation=name))
    np.testing.assert_array_equal(out, cv2.resize(frame, (32, 32), interpolation=flag))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_color_becomes_gray_with_opencvs_weights_and_gray_fills_the_channels(dtype: Any) -> None:
    frame = noise(32, 32, 3, dtype=dtype)
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(resize_frame(frame, image_input(channels=1, dtype=dtype))[..., 0], gray)
    for form in (gray, gray[..., None]):
        out = resize_frame(form, image_input(dtype=dtype))
        np.testing.assert_array_equal(out, np.repeat(gray[..., None], 3, axis=2))


def test_a_frame_of_the_right_size_is_not_copied() -> None:
    frame, gray = noise(32, 32, 3), noise(32, 32)
    for antialias in (False, True):
        assert np.shares_memory(resize_frame(frame, image_input(antialias=antialias)), frame)
        assert np.shares_memory(resize_frame(gray, image_input(channels=1, antialias=antialias)), gray)


@pytest.mark.parametrize("antialias", [False, True])
def test_strides_do_not_matter(antialias: bool) -> None:
    spec = image_input(antialias=antialias)
    wide = noise(64, 90, 3)
    for view in (wide[:, ::-1], wide[::2, 10:50], np.asfortranarray(wide), wide[..., ::-1]):
        np.testing.assert_array_equal(resize_frame(view, spec), resize_frame(np.ascontiguousarray(view), spec))
    view = wide[:32, ::-1][:, :32]
    out = resize_frame(view, spec)
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, view)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((5, 5, 4), np.uint8), "alpha"),
        (np.zeros((5, 5, 3), np.float32), r"expected uint8 \(H, W, 3\) BGR or \(H, W\) gray, got float32 \(5, 5, 3\)"),
        (np.zeros((3, 50, 50), np.uint8), "channels come last"),
        (np.zeros((1, 5, 5, 3), np.uint8), "one frame at a time"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 5, 2), np.uint8), r"got uint8 \(5, 5, 2\)"),
        ([[1, 2], [3, 4]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_frame_is_refused(frame: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        resize_frame(frame, image_input())
    assert "frame: expected uint8" in caught.value.message


def test_a_border_value_must_fit_the_pixels() -> None:
    for value in (256.0, -1.0, 0.5):
        with pytest.raises(ConfigError, match="pad_value"):
            image_input(pad_value=value)
    spec = replace(image_input(dtype="float32", resize="letterbox", pad_value=0.5), size=(4, 8))
    assert resize_frame(np.zeros((4, 4, 3), np.float32), spec)[0, 0, 0] == 0.5
