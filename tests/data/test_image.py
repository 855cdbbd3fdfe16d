"""Reading image files: pixel types, channels, orientation, and damage."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data import read_frame
from edgekit.errors import DataError
from edgekit.runtime.tasks.base import ImageInput

BGR = ImageInput(size=(8, 8))
GRAY = ImageInput(size=(8, 8), channels=1, color="gray", mean=(0.0,), std=(1.0,))


def gradient(dtype: str = "uint8") -> np.ndarray:  # type: ignore[type-arg]
    row = np.arange(24 * 16, dtype=np.float64).reshape(16, 24) / (24 * 16)
    top = {"uint8": 255, "uint16": 65535, "float32": 1.0}[dtype]
    return np.stack([row * top, row[::-1] * top, row[:, ::-1] * top], axis=-1).astype(dtype)


def save(path: Path, array: np.ndarray) -> Path:  # type: ignore[type-arg]
    cv2.imencode(path.suffix, array)[1].tofile(path)
    return path


def test_a_lossless_file_with_a_unicode_name_comes_back_as_bgr(tmp_path: Path) -> None:
    frame = read_frame(save(tmp_path / "größe 猫.png", gradient()), BGR)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, gradient())


def test_channels_are_converted_and_alpha_is_dropped(tmp_path: Path) -> None:
    color = save(tmp_path / "color.png", gradient())
    np.testing.assert_array_equal(read_frame(color, GRAY), cv2.cvtColor(gradient(), cv2.COLOR_BGR2GRAY))
    gray = save(tmp_path / "gray.png", gradient()[..., 0])
    np.testing.assert_array_equal(read_frame(gray, BGR), np.repeat(gradient()[..., :1], 3, axis=2))
    alpha = save(tmp_path / "alpha.png", np.dstack([gradient(), np.full((16, 24), 7, np.uint8)]))
    np.testing.assert_array_equal(read_frame(alpha, BGR), gradient())


@pytest.mark.parametrize(("dtype", "suffix"), [("uint16", ".png"), ("uint16", ".tiff"), ("float32", ".tiff")])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pixels_keep_all_their_bits(tmp_path: Path, dtype: str, suffix: str, channels: int) -> None:
    pixels = gradient(dtype) if channels == 3 else np.ascontiguousarray(gradient(dtype)[..., 0])
    base = BGR if channels == 3 else GRAY
    spec = ImageInput(
        size=(8, 8),
        dtype=dtype,
        channels=base.channels,
        color=base.color,
        mean=base.mean,
        std=base.std,  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(read_frame(save(tmp_path / f"deep{suffix}", pixels), spec), pixels)


@pytest.mark.parametrize(("stored", "wanted"), [("uint16", "uint8"), ("uint8", "uint16"), ("uint8", "float32")])
def test_another_pixel_type_is_refused_not_converted(tmp_path: Path, stored: str, wanted: str) -> None:
    path = save(tmp_path / "image.png", gradient(stored))
    with pytest.raises(DataError, match=f"expected {wanted} pixels, found {stored}") as caught:
        read_frame(path, ImageInput(size=(8, 8), dtype=wanted))  # type: ignore[arg-type]
    assert caught.value.hint is not None


def test_float_images_are_refused_with_other_channels_or_nan(tmp_path: Path) -> None:
    spec = ImageInput(size=(8, 8), dtype="float32")
    with pytest.raises(DataError, match="expected 3 channels, found 1"):
        read_frame(save(tmp_path / "gray.tiff", np.ascontiguousarray(gradient("float32")[..., 0])), spec)
    broken = gradient("float32")
    broken[3, 3, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        read_frame(save(tmp_path / "nan.tiff", broken), spec)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Puts an EXIF segment with one tag (0x0112, orientation) behind the start marker."""
    tiff = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    payload = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


@pytest.mark.parametrize("spec", [BGR, GRAY])
def test_exif_orientation_is_applied(tmp_path: Path, spec: ImageInput) -> None:
    jpeg = cv2.imencode(".jpg", gradient())[1].tobytes()
    (tmp_path / "plain.jpg").write_bytes(jpeg)
    (tmp_path / "turned.jpg").write_bytes(with_orientation(jpeg, 6))
    plain = read_frame(tmp_path / "plain.jpg", spec)
    np.testing.assert_array_equal(read_frame(tmp_path / "turned.jpg", spec), cv2.rotate(plain, cv2.ROTATE_90_CLOCKWISE))


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_cut_anywhere_is_refused(tmp_path: Path, progressive: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    # A complete thumbnail in a segment ends with an end marker of its own, which must not pass for the image's.
    thumbnail = cv2.imencode(".jpg", noise[:8, :8])[1].tobytes()
    whole = jpeg[:2] + b"\xff\xec" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole + b"trailing bytes")
    assert read_frame(path, BGR).shape == (48, 48, 3)
    for length in range(1, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_frame(path, BGR)
    path.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="truncated JPEG"):
        read_frame(path, BGR)


def test_other_damage_is_refused(tmp_path: Path) -> None:
    png = cv2.imencode(".png", gradient())[1].tobytes()
    for name, content, message in [
        ("zero.png", b"", "0 bytes"),
        ("cut.png", png[: len(png) // 2], "cannot decode"),
        ("text.jpg", b"not an image", "cannot decode"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_frame(tmp_path / name, BGR)
    with pytest.raises(DataError, match=r"gone.png: cannot read"):
        read_frame(tmp_path / "gone.png", BGR)
