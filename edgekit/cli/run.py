"""``edgekit run``: a bundle on images, with a picture of each result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from edgekit.cli.answer import Answer
from edgekit.cli.options import (
    EXISTING_PATH,
    NEW_PATH,
    bundle_argument,
    json_option,
    target_option,
    threads_option,
    trust_option,
)
from edgekit.data import Dataset, Frames, Sample, iterate, read_folder
from edgekit.errors import DataError, UserError
from edgekit.files import atomic_write
from edgekit.progress import progress_for
from edgekit.runtime import load
from edgekit.runtime.tasks.base import Frame
from edgekit.table import output_width, table

__all__ = ["command"]


@click.command(
    "run",
    epilog="Examples: edgekit run model.edge photo.jpg --save out/; edgekit run model.edge photos/ --json",
)
@bundle_argument
@click.argument("sources", nargs=-1, required=True, type=EXISTING_PATH, metavar="IMAGE|DIR...")
@click.option("--save", type=NEW_PATH, metavar="DIR", help="Write a picture of each result into this folder.")
@target_option
@threads_option
@trust_option
@json_option
def command(
    bundle: Path,
    sources: tuple[Path, ...],
    save: Path | None,
    target: str | None,
    threads: int | None,
    trust_plan: bool,
) -> Answer:
    """Runs a bundle on images, or on all images of a folder, and prints one typed result for each.

    An image that cannot be read is left out, with the reason; too many of them are an error.
    """
    dataset = Dataset(samples=tuple(_samples(sources)), classes=None)
    with load(bundle, target=target, threads=threads, trust_plan=trust_plan) as model:
        if model.spec is None:
            raise UserError(
                f"{bundle}: holds a raw model without a task, so its outputs are plain tensors",
                hint="compile with --task, or use edgekit.runtime.load(...).infer in Python",
            )
        frames = iterate(dataset, model.spec.input)
        waiting: deque[tuple[Sample, Frame]] = deque()
        pictures = None if save is None else _Pictures(save)
        results: list[dict[str, Any]] = []
        with progress_for(quiet=False).task("running", len(dataset)) as task:
            for result in model.stream(_remembered(frames, waiting)):
                sample, frame = waiting.popleft()
                picture = None if pictures is None else pictures.write(sample.path, result.draw(_display(frame)))
                results.append({"path": sample.path, "result": result.to_dict(), "picture": picture})
                task.advance()
        engine = {"target": model.entry.target, "precision": model.entry.precision}
    skipped = [{"path": bad.path, "reason": bad.reason} for bad in frames.skipped]
    document = {"bundle": bundle, "engine": engine, "results": results, "skipped": skipped}
    return Answer(schema="edgekit.run/1", document=document, text=_text(results, frames))


class _Pictures:
    """Writes pictures into one folder, under the names of their images, none twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make the folder: {error.strerror}", hint="give another path") from error

    def write(self, source: Path, picture: Frame) -> Path:
        name, number = source.stem, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{source.stem}-{number}"
        self._taken.add(name.lower())
        path = self._folder / f"{name}.png"
        _, data = cv2.imencode(".png", picture)
        with atomic_write(path) as stream:
            stream.write(data.tobytes())
        return path


def _samples(sources: Sequence[Path]) -> Iterator[Sample]:
    for source in sources:
        if source.is_dir():
            yield from (Sample(path=sample.path, label=None) for sample in read_folder(source, None).samples)
        elif not source.exists():
            raise DataError(f"{source}: no such image or folder", hint="check the path")
        else:
            yield Sample(path=source, label=None)


def _remembered(frames: Frames, waiting: deque[tuple[Sample, Frame]]) -> Iterator[Frame]:
    """Yields the frames and keeps those that are under way, so that each result finds its image again."""
    for sample, frame in frames:
        waiting.append((sample, frame))
        yield frame


def _display(frame: Frame) -> Frame:
    """Returns the frame as uint8, to draw on; 16 bits lose the lower 8, floats are stretched to their range."""
    if frame.dtype == np.uint8:
        return frame
    if frame.dtype == np.uint16:
        return (frame >> 8).astype(np.uint8)
    low, high = float(frame.min()), float(frame.max())
    return ((frame - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)


def _text(results: Sequence[dict[str, Any]], frames: Frames) -> str:
    rows = []
    for entry in results:
        picture = "" if entry["picture"] is None else str(entry["picture"])
        rows.append([str(entry["path"]), _summary(entry["result"]), picture])
    lines = [table(["image", "result", "picture"], rows, width=output_width())]
    if frames.skipped:
        lines.append(f"skipped {len(frames.skipped)} images that cannot be read:")
        lines += [f"  {bad.reason}" for bad in frames.skipped]
    return "\n".join(lines)


def _summary(result: dict[str, Any]) -> str:
    """Names the plain values of a result; lists and tables are for ``--json``."""
    parts = []
    for key, value in result.items():
        if key == "task":
            continue
        if isinstance(value, (str, bool, int)):
            parts.append(f"{key} {value}")
        elif isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
    return ", ".join(parts)
