"""Reads one image file into a frame as the device would see it."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from edgekit.errors import DataError
from edgekit.runtime.tasks.base import Frame, ImageInput

__all__ = ["read_frame"]

_JPEG_START = b"\xff\xd8"
_JPEG_END = 0xD9
# A marker is 0xFF and a byte that is neither stuffing (00), a fill byte (FF), nor a restart marker (D0 to D7).
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)


def read_frame(path: Path, spec: ImageInput) -> Frame:
    """Reads an image as a frame of the spec's pixel type.

    Integer images: an alpha channel is dropped, gray becomes BGR and BGR becomes gray (ITU-R BT.601 luma, by OpenCV's
    ``cvtColor``) as ``spec.channels`` asks, and an EXIF orientation is applied, as OpenCV does by default. Float images
    (TIFF) are taken as they are: their channels must be the spec's, and orientation tags are not looked at. Pixels are
    never rescaled: a file of another pixel type is refused, since 16 bits into 8 loses what the model was trained on.

    Args:
        path: The image file; any name that the file system allows.
        spec: The input that the frame is for.

    Returns:
        (H, W, 3) BGR or (H, W) gray, contiguous, in ``spec.dtype``, at the image's own size.

    Raises:
        DataError: The file cannot be read, is empty, truncated or no image, or has another pixel type or channel count
            than the spec.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error
    if data.size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes), expected an image")
    _check_jpeg_complete(path, data)
    try:
        frame = cv2.imdecode(data, _flags(spec))
    except cv2.error as error:
        raise DataError(f"{path}: cannot decode the image: {error.err}") from error
    if frame is None:
        raise DataError(f"{path}: cannot decode the image ({data.size} bytes): damaged, or no image that OpenCV reads")
    if frame.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"{path}: expected {spec.dtype} pixels, found {frame.dtype}",
            hint=f"convert the image, or set dtype = '{frame.dtype}' in the task's [input] if the model was trained so",
        )
    found = 1 if frame.ndim == 2 else frame.shape[2]
    if spec.dtype == "float32" and found != spec.channels:
        raise DataError(f"{path}: expected {spec.channels} channels, found {found}", hint="convert the image")
    if spec.dtype == "float32" and not np.isfinite(frame).all():
        raise DataError(
            f"{path}: holds NaN or infinite pixels", hint="replace them by a value that the model was trained with"
        )
    if spec.channels == 1 and frame.ndim == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(frame)


def _flags(spec: ImageInput) -> int:
    if spec.dtype == "float32":
        return cv2.IMREAD_UNCHANGED
    # IMREAD_ANYDEPTH keeps 16 bits; without it OpenCV drops the lower 8 silently. IMREAD_GRAYSCALE is not used: codecs
    # have their own weights, so the same pixels would be another gray in a PNG than in a JPEG.
    return cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH


def _check_jpeg_complete(path: Path, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
    """Refuses a JPEG without its end marker: some OpenCV versions decode the rest as gray and only print a warning.

    Walks the marker segments, since an embedded thumbnail has an end marker of its own.

    Source: ITU-T T.81, annex B.1.1 (markers) and B.2.1 (order of segments).
    """
    raw = data.tobytes()
    if not raw.startswith(_JPEG_START):
        return
    position = len(_JPEG_START)
    while True:
        marker = _JPEG_MARKER.search(raw, position)
        if marker is None:
            raise DataError(f"{path}: truncated JPEG ({len(raw)} bytes, no end marker)", hint="copy the file again")
        if marker.group(1)[0] == _JPEG_END:
            return
        length_at = marker.end()
        position = length_at + int.from_bytes(raw[length_at : length_at + 2], "big")
