"""Writing on pictures so that it can be read: on small ones, light ones and dark ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.errors import UserError

__all__ = ["caption", "drawable"]

Frame = npt.NDArray[Any]

_SHORTER_SIDE = 240
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MIN_FONT_SCALE = 0.4


def drawable(frame: Frame) -> Frame:
    """Returns a copy of a frame to draw on: colour, and enlarged by a whole factor where it is too small for text.

    Args:
        frame: uint8 (H, W, 3) BGR, (H, W) or (H, W, 1) gray.

    Returns:
        uint8 (H * k, W * k, 3) BGR, contiguous.

    Raises:
        UserError: Another dtype or shape.
    """
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3)):
        raise UserError(
            f"draw: expected uint8 (H, W, 3) BGR or (H, W) gray, got {frame.dtype} {frame.shape}",
            hint="scale the frame to 8 bits for drawing",
        )
    gray = frame.ndim == 2 or frame.shape[2] == 1
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if gray else frame
    factor = -(-_SHORTER_SIDE // min(picture.shape[:2])) if min(picture.shape[:2]) < _SHORTER_SIDE else 1
    return np.ascontiguousarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))


def caption(picture: Frame, lines: Sequence[str]) -> Frame:
    """Writes lines of text into the top left corner, white on a darkened band.

    Where the band would hide more than a quarter of the picture, it goes above the picture instead.

    Text that would not fit the width is made smaller, then cut. Characters outside ASCII become question marks, since
    OpenCV's built-in fonts lack them.

    Args:
        picture: uint8 (H, W, 3) BGR from :func:`drawable`.
        lines: The text, top first; those that do not fit the height are left out.

    Returns:
        uint8 (H, W, 3) BGR, or (H + band, W, 3).
    """
    height, width = picture.shape[:2]
    scale = min(max(_MIN_FONT_SCALE, height / 720), 2.0)
    thickness = max(1, round(scale * 1.5))
    texts = [line.encode("ascii", "replace").decode("ascii") for line in lines]
    margin = max(4, round(8 * scale))
    room = width - 2 * margin
    widest = max((_text_width(text, scale, thickness) for text in texts), default=0)
    if widest > room:
        scale = max(_MIN_FONT_SCALE, scale * room / widest)
        thickness = max(1, round(scale * 1.5))
    (_, above), below = cv2.getTextSize("Hg", _FONT, scale, thickness)
    step = above + below + margin
    texts = [_cut(text, room, scale, thickness) for text in texts[: max(1, (height - margin) // step)]]
    band_height = min(height, margin + step * len(texts))
    if band_height > height / 4:
        written = np.concatenate([np.zeros((band_height, width, 3), dtype=np.uint8), picture])
    else:
        written = picture.copy()
        written[:band_height] //= 3
    for index, text in enumerate(texts):
        origin = (margin, margin + above + step * index)
        cv2.putText(written, text, origin, _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return written


def _text_width(text: str, scale: float, thickness: int) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, thickness)[0][0])


def _cut(text: str, room: int, scale: float, thickness: int) -> str:
    if _text_width(text, scale, thickness) <= room:
        return text
    while text and _text_width(text + "...", scale, thickness) > room:
        text = text[:-1]
    return text + "..."
