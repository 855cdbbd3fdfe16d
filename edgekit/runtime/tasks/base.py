"""The device's half of a task: how a frame becomes the engine's input, and how its outputs become a typed result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from edgekit.errors import ConfigError

__all__ = ["ImageInput", "Result", "RuntimeTask"]

Frame = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The ``[input]`` table of a task spec: what the *trained model* expects, and how a frame of any size gets there.

    The model's float input is ``(pixel * scale - mean) / std`` per channel, in ``color`` order. That arithmetic is
    folded into the graph; on the device only the resize remains.

    Attributes:
        size: Height and width of the model's input, pixels.
        dtype: Type of a frame's pixels.
        channels: 1 or 3.
        color: Channel order that the model was trained with; frames arrive as BGR (OpenCV's order) or gray.
        resize: ``stretch`` to the size; ``crop``: the shorter side to size / crop_fraction, then the centre;
            ``letterbox``: the whole frame, with borders of ``pad_value``.
        crop_fraction: For ``crop``: side of the centre crop over the resized side (0.875 is the ImageNet habit).
        pad_value: For ``letterbox``: border pixel value.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``area`` or ``lanczos``.
        antialias: True: the filter widens when shrinking, as in Pillow, and in torchvision on Pillow images; False: as
            in OpenCV.
        scale: Factor on raw pixels before mean and std (1/255 for models trained on 0..1).
        mean, std: Per channel, in ``color`` order, in scaled units.
    """

    size: tuple[int, int]
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    channels: Literal[1, 3] = 3
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    resize: Literal["stretch", "crop", "letterbox"] = "stretch"
    crop_fraction: float = 0.875
    pad_value: float = 114.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "lanczos"] = "bilinear"
    antialias: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ConfigError(f"size: expected [height, width] of at least 1 pixel, got {list(self.size)}")
        if (self.color == "gray") != (self.channels == 1):
            raise ConfigError(
                f"color = '{self.color}' does not fit channels = {self.channels}", hint="gray goes with channels = 1"
            )
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count != self.channels:
                raise ConfigError(f"{name}: expected {self.channels} values, one per channel, got {count}")
        if min(self.std) <= 0 or self.scale <= 0:
            raise ConfigError(f"std and scale must be positive, got std = {list(self.std)}, scale = {self.scale}")
        if not 0 < self.crop_fraction <= 1:
            raise ConfigError(f"crop_fraction: expected a value in (0, 1], got {self.crop_fraction}")
        top = {"uint8": 255.0, "uint16": 65535.0, "float32": None}[self.dtype]
        if top is not None and not (0 <= self.pad_value <= top and self.pad_value == int(self.pad_value)):
            raise ConfigError(
                f"pad_value: expected a whole number from 0 to {top:.0f} for {self.dtype}, got {self.pad_value}"
            )
        if self.interpolation == "area" and self.antialias:
            raise ConfigError(
                "interpolation = 'area' with antialias = true: area averaging is OpenCV's", hint="set antialias = false"
            )


class Spec(Protocol):
    """What every task spec has; the dataclass of each task adds its own keys."""

    @property
    def task(self) -> str: ...

    @property
    def input(self) -> ImageInput: ...


class Result(Protocol):
    """A typed result: frozen, numpy arrays, coordinates of the original frame."""

    def to_dict(self) -> dict[str, Any]: ...

    def draw(self, frame: Frame) -> Frame:
        """Returns a copy of ``frame`` (uint8 HWC BGR, or HW gray) with the result drawn on it, as uint8 HWC BGR."""


SpecT = TypeVar("SpecT", bound=Spec, contravariant=True)
ResultT = TypeVar("ResultT", bound=Result, covariant=True)


class RuntimeTask(Protocol[SpecT, ResultT]):
    """One task on the device; an entry of the table in ``edgekit.runtime.tasks``."""

    @property
    def name(self) -> str: ...

    @property
    def spec_type(self) -> type[Any]:
        """The frozen dataclass of the task's spec, read by :func:`edgekit.config.from_dict`."""

    def decode(self, outputs: Mapping[str, Frame], spec: SpecT, frame_shape: tuple[int, ...]) -> ResultT:
        """Turns the engine's outputs for ONE frame (each without its batch dimension) into a typed result.

        Args:
            outputs: Output name to array, batch dimension removed.
            spec: The task spec.
            frame_shape: Shape of the original frame, for undoing the resize.
        """
