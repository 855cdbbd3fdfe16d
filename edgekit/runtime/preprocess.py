"""From a frame of any size to the model's size: the one part of preprocessing that stays outside the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.errors import UserError
from edgekit.runtime.resample import Span, resample
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["ResizeGeometry", "check_frame", "resize_frame", "resize_geometry"]

Frame = npt.NDArray[Any]

# Keeps 224 / 0.9655 at 232, as the fraction was made from 224 / 232.
_CROP_SLACK = 1e-3


@dataclass(frozen=True, kw_only=True)
class ResizeGeometry:
    """Where a frame's pixels land in the model's input: ``model = frame * scale + offset``, per axis.

    Coordinates count pixel edges: 0 is the left edge of the first pixel, the width is the right edge of the last.

    Attributes:
        frame: Height and width of the frame.
        resized: Height and width after the resize, before the crop or the borders.
        size: Height and width of the model's input.
        offset: (y, x) of the resized frame's corner in the model's input: positive with borders, negative with a crop.
    """

    frame: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """(y, x) factor from the frame to the model's input."""
        return self.resized[0] / self.frame[0], self.resized[1] / self.frame[1]

    def to_frame(self, points: Frame) -> npt.NDArray[np.float32]:
        """Maps points of the model's input back to the frame, unclipped.

        Args:
            points: (..., 2), x then y, in pixels of the model's input.

        Returns:
            (..., 2) float32, x then y, in pixels of the frame.
        """
        offset = np.array(self.offset[::-1], dtype=np.float64)
        scale = np.array(self.scale[::-1], dtype=np.float64)
        return ((points - offset) / scale).astype(np.float32)


def resize_geometry(frame_shape: tuple[int, ...], spec: ImageInput) -> ResizeGeometry:
    """Says how a frame of this shape reaches the model's size.

    1. ``stretch``: both axes to the size.
    2. ``crop``: the frame is scaled until it just covers ``floor(size / crop_fraction)``, the longer side rounded down,
       then the centre is cut out, its corner rounded half to even.
    3. ``letterbox``: the frame is scaled until it just fits the size, the shorter side rounded to nearest; an odd
       border pixel goes to the bottom or right.

    Args:
        frame_shape: (H, W) or (H, W, C).
        spec: The ``[input]`` table.

    Source: for 2, torchvision's ``Resize(int)`` (``_compute_resized_output_size``) and ``CenterCrop``, with timm's size
    of the resize (``floor(size / crop_pct)``).
    """
    height, width = frame_shape[0], frame_shape[1]
    rows, columns = spec.size
    if spec.resize == "stretch":
        resized, offset = (rows, columns), (0, 0)
    elif spec.resize == "crop":
        tall = int(rows / spec.crop_fraction + _CROP_SLACK)
        wide = int(columns / spec.crop_fraction + _CROP_SLACK)
        resized = (tall, tall * width // height) if tall * width >= wide * height else (wide * height // width, wide)
        offset = (-round((resized[0] - rows) / 2.0), -round((resized[1] - columns) / 2.0))
    else:
        scale = min(rows / height, columns / width)
        resized = (_fitted(height * scale, rows), _fitted(width * scale, columns))
        offset = ((rows - resized[0]) // 2, (columns - resized[1]) // 2)
    return ResizeGeometry(frame=(height, width), resized=resized, size=spec.size, offset=offset)


def _fitted(length: float, limit: int) -> int:
    return min(max(int(length + 0.5), 1), limit)


def check_frame(frame: Frame, spec: ImageInput) -> None:
    """Refuses a frame that the spec cannot take.

    Raises:
        UserError: Not an array, another dtype, an alpha channel, another number of channels, or no pixels.
    """
    expected = f"expected {spec.dtype} (H, W, 3) BGR or (H, W) gray"
    if not isinstance(frame, np.ndarray):
        raise UserError(f"frame: {expected}, got {type(frame).__name__}", hint="pass it as cv2.imread gives it")
    found = f"got {frame.dtype} {frame.shape}"
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise UserError(
            f"frame: {expected}, {found}: the fourth channel looks like alpha",
            hint="drop it: cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)",
        )
    if frame.ndim == 3 and frame.shape[0] in (1, 3) and frame.shape[2] not in (1, 3):
        raise UserError(f"frame: {expected}, {found}: channels come last", hint="pass the frame as cv2.imread gives it")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3)):
        raise UserError(f"frame: {expected}, {found}", hint="pass one frame at a time, as cv2.imread gives it")
    if frame.dtype != np.dtype(spec.dtype):
        raise UserError(f"frame: {expected}, {found}", hint="pass the raw frame: the bundle normalises it")
    if 0 in frame.shape:
        raise UserError(f"frame: {expected}, {found}: it has no pixels")


def resize_frame(frame: Frame, spec: ImageInput) -> Frame:
    """Brings a frame to the model's size, as ``spec`` says.

    With ``antialias`` the pixels are Pillow's (see :mod:`edgekit.runtime.resample`), else those of ``cv2.resize`` with
    the same interpolation. A colour frame for a gray model becomes gray with OpenCV's weights, before the resize; a
    gray frame for a colour model is repeated into each channel, after it.

    Args:
        frame: (H, W, 3) BGR, (H, W) or (H, W, 1) gray, of ``spec.dtype``; any strides.
        spec: The ``[input]`` table.

    Returns:
        (h, w, C), contiguous, of the frame's dtype; C is ``spec.channels``, colour in BGR order. It may share the
        memory of a frame that has the right size already.

    Raises:
        UserError: See :func:`check_frame`.
    """
    check_frame(frame, spec)
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if spec.channels == 1 and frame.ndim == 3:
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    geometry = resize_geometry(frame.shape, spec)
    frame = _bordered(_scaled(frame, geometry, spec), geometry, spec)
    if frame.ndim == 2:
        frame = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if spec.channels == 3 else frame[:, :, None]
    return np.ascontiguousarray(frame)


def _scaled(frame: Frame, geometry: ResizeGeometry, spec: ImageInput) -> Frame:
    """Resizes, and cuts off what lies outside the model's input."""
    (top, bottom), (left, right) = (_window(geometry, axis) for axis in (0, 1))
    if geometry.resized == geometry.frame:
        return frame[top:bottom, left:right]
    if spec.antialias and spec.interpolation != "area":
        rows = Span(source=geometry.frame[0], target=geometry.resized[0], start=top, stop=bottom)
        columns = Span(source=geometry.frame[1], target=geometry.resized[1], start=left, stop=right)
        return resample(frame, rows=rows, columns=columns, filter=spec.interpolation)
    flags = {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    resized = cv2.resize(frame, geometry.resized[::-1], interpolation=flags[spec.interpolation])
    return resized[top:bottom, left:right]


def _window(geometry: ResizeGeometry, axis: int) -> tuple[int, int]:
    start = max(-geometry.offset[axis], 0)
    return start, min(start + geometry.size[axis], geometry.resized[axis])


def _bordered(frame: Frame, geometry: ResizeGeometry, spec: ImageInput) -> Frame:
    if frame.shape[:2] == geometry.size:
        return frame
    out = np.full((*geometry.size, *frame.shape[2:]), spec.pad_value, dtype=frame.dtype)
    top, left = geometry.offset
    out[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return out
