"""From the pixels of frames to the float images that a program takes, as preprocessing folded into it would do."""

from __future__ import annotations

import torch

from edgekit.errors import UserError
from edgekit.program import Program
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["PixelScale", "check_takes_images"]

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}


class PixelScale:
    """The arithmetic of a spec's ``[input]`` table, in two steps, so that images can be varied in between.

    Args:
        image: The table.
        device: Where it is done.
    """

    def __init__(self, image: ImageInput, device: torch.device) -> None:
        # Float pixels say nothing of what is white; scaled by the spec they are as near to 0..1 as can be known.
        self._full = _FULL_SCALE.get(image.dtype, 1.0 / image.scale)
        self._reverse = image.color == "rgb"
        self._device = device
        shape = (1, image.channels, 1, 1)
        mean, std = (torch.tensor(values, dtype=torch.float64).reshape(shape) for values in (image.mean, image.std))
        self._factor = (image.scale * self._full / std).float().to(device)
        self._shift = (-mean / std).float().to(device)

    def shares(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turns pixels into shares of full scale, in the network's layout and colour order.

        Args:
            pixels: (N, H, W, C) in the spec's pixel type, colour in BGR order.

        Returns:
            (N, C, H, W) float32, 0..1 where the full scale is known.
        """
        moved = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        if self._reverse:
            moved = moved.flip(1)
        return (moved.float() / self._full).contiguous()

    def normalised(self, shares: torch.Tensor) -> torch.Tensor:
        """Turns shares of full scale into what the network takes, by mean and std; (N, C, H, W) float32."""
        return shares * self._factor + self._shift


def check_takes_images(program: Program) -> ImageInput:
    """Returns the table of the program's images.

    Raises:
        UserError: It has no task, several inputs, or does not take float images of the task's size.
    """
    if program.task is None:
        raise UserError(
            f"'{program.name}' has no task spec, so how it takes images is unknown", hint="give a task spec (--task)"
        )
    image = program.task.input
    expected = (image.channels, *image.size)
    found = [(spec.name, spec.dtype, tuple(spec.shape)) for spec in program.inputs]
    if len(found) != 1 or found[0][1] != "float32" or found[0][2][1:] != expected:
        raise UserError(
            f"'{program.name}' takes {', '.join(f'{name} {dtype} {shape}' for name, dtype, shape in found)}: training "
            f"needs one float32 input (N, {', '.join(map(str, expected))}), as the task spec says",
            hint="train before preprocessing is folded in, and make [input] agree with the model",
        )
    if not program.dynamic_batch:
        raise UserError(
            f"'{program.name}' takes batches of {found[0][2][0]} only, training needs larger ones",
            hint="export it for any batch: dynamic_shapes={0: torch.export.Dim('batch')}",
        )
    return image
