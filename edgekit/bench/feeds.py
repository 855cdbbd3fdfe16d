"""What a benchmark feeds: real images from a folder, or the bundle's golden inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle import Bundle, Entry
from edgekit.data import choose, iterate, read_folder
from edgekit.errors import UserError
from edgekit.runtime.session import Array
from edgekit.runtime.tasks.base import Frame, ImageInput

__all__ = ["Frames", "golden_feeds", "golden_frames", "image_frames"]

_MAX_FRAMES = 32
_MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames for the whole way from frame to result.

    Attributes:
        frames: HWC BGR or HW gray, held in memory, so that no disk is timed.
        source: Where they come from, for the report.
    """

    frames: tuple[Frame, ...]
    source: str


def golden_feeds(bundle: Bundle, entry: Entry) -> tuple[dict[str, Array], ...]:
    """Returns the golden inputs of an entry, one feed per sample, each with a batch dimension of 1.

    Raises:
        UserError: The entry has no golden inputs.
    """
    arrays = {name: bundle.array(path) for name, path in entry.golden.inputs.items()}
    counts = {array.shape[0] for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise UserError(f"{bundle.path}: the entry for '{entry.target}' has no golden inputs to measure with")
    return tuple({name: array[i : i + 1] for name, array in arrays.items()} for i in range(min(counts)))


def golden_frames(feeds: tuple[Mapping[str, Array], ...]) -> Frames:
    """Takes the golden images as frames; they have the model's size already, so preprocessing only copies them."""
    frames = []
    for feed in feeds:
        (image,) = feed.values()
        frames.append(image[0, :, :, 0] if image.shape[-1] == 1 else image[0])
    return Frames(frames=tuple(frames), source=f"{len(frames)} golden inputs, already at the model's size")


def image_frames(root: Path, spec: ImageInput, *, seed: int) -> Frames:
    """Reads up to 32 seeded images (256 MiB) of a folder into memory.

    Args:
        root: A folder of images, with or without class folders.
        spec: The input that the frames are for.
        seed: Seed of the choice.

    Raises:
        DataError: The folder cannot be used, or too many of its images cannot be read.
    """
    chosen = choose(read_folder(root, None), _MAX_FRAMES, sampling="random", seed=seed)
    frames: list[Frame] = []
    size_bytes = 0
    for _, frame in iterate(chosen, spec):
        if frames and size_bytes + frame.nbytes > _MAX_BYTES:
            break
        frames.append(frame)
        size_bytes += frame.nbytes
    shapes = sorted({f"{frame.shape[1]} x {frame.shape[0]}" for frame in frames})
    sizes = shapes[0] if len(shapes) == 1 else f"{len(shapes)} sizes such as {shapes[0]}"
    return Frames(frames=tuple(frames), source=f"{len(frames)} images, {sizes} pixels")
