"""What the compiler's tests share: colour images, a network trained on them, and backends that misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from edgekit.backends.base import Backend, Engine, EngineTimes, PortableGraph, Probe, Rehearsal, Verdict
from edgekit.compiler import CompileOptions, CompileReport
from edgekit.compiler.flow import compile_program
from edgekit.compiler.images import ImageSets
from edgekit.compiler.inputs import gather
from edgekit.frontend import load_program
from edgekit.progress import SilentProgress
from edgekit.runtime.machine import default_target
from edgekit.runtime.session import Session
from edgekit.targets import Target
from edgekit.tensorspec import LayerRecord
from tests.networks import LABELS, module

# What is timed and opened here: an x86 CPU with VNNI or without.
HERE = default_target().name
COLORS = {"red": (40, 40, 200), "green": (40, 200, 40), "blue": (200, 40, 40), "gray": (120, 120, 120)}
SPEC = """
task = "classification"
labels = ["red", "green", "blue", "gray"]
[input]
size = [16, 16]
scale = 0.00392156862745098
mean = [0.5, 0.45, 0.4]
std = [0.25, 0.3, 0.2]
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A folder with everything that one compilation takes, and the network that knows its images."""

    folder: Path
    net: nn.Module

    @property
    def task(self) -> Path:
        return self.folder / "task.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def weights(self) -> Path:
        return self.folder / "colors.pt"


def make_world(folder: Path) -> World:
    (folder / "task.toml").write_text(SPEC)
    write_images(folder / "data", count=20)
    net = trained("residual")
    torch.save(net.state_dict(), folder / "colors.pt")
    return World(folder=folder, net=net)


def picture(label: str, generator: np.random.Generator, *, brightness: float = 1.0) -> np.ndarray[Any, Any]:
    """(20, 24, 3) uint8 BGR: a noisy field of the label's colour."""
    noise = generator.normal(0, 25, (20, 24, 3))
    return np.clip((np.asarray(COLORS[label]) + noise) * brightness, 0, 255).astype(np.uint8)


def write_images(
    root: Path,
    *,
    count: int,
    seed: int = 0,
    brightness: float = 1.0,
    labels: Sequence[str] = LABELS,
    flat: bool = False,
) -> Path:
    generator = np.random.default_rng(seed)
    for label in labels:
        folder = root if flat else root / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            cv2.imwrite(str(folder / f"{label}{number:03d}.png"), picture(label, generator, brightness=brightness))
    return root


def model_inputs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(4 * count, 3, 16, 16) as the network wants them, and (4 * count,) labels."""
    generator = np.random.default_rng(seed)
    frames = [cv2.resize(picture(label, generator), (16, 16)) for label in LABELS for _ in range(count)]
    rgb = torch.from_numpy(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    shape = (1, 3, 1, 1)
    mean, std = torch.tensor((0.5, 0.45, 0.4)).reshape(shape), torch.tensor((0.25, 0.3, 0.2)).reshape(shape)
    return (rgb - mean) / std, torch.arange(len(LABELS)).repeat_interleave(count)


def trained(name: str) -> nn.Module:
    """A tiny network that is right on every such image, in evaluation mode."""
    torch.set_num_threads(1)
    net = module(name).train()
    inputs, labels = model_inputs(24, seed=9)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    net.eval()
    assert (net(model_inputs(16, seed=10)[0]).argmax(1) == model_inputs(16, seed=10)[1]).all()
    return net


def compile_with(wrap: Callable[[Backend], Backend], net: nn.Module, options: CompileOptions) -> CompileReport:
    """The flow as ``edgekit.compile`` runs it, with each job's backend wrapped."""
    inputs = gather(options)
    inputs = replace(inputs, jobs=tuple(replace(job, backend=wrap(job.backend)) for job in inputs.jobs))
    program = load_program(net, task=inputs.spec)
    images = ImageSets.of(inputs.calibration, inputs.evaluation, inputs.spec)
    return compile_program(program, inputs, options, images=images, progress=SilentProgress())


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """The real backend behind hooks on what it builds from and what it opens."""

    inner: Backend
    given: Callable[[PortableGraph], PortableGraph] = lambda graph: graph
    opened: Callable[[Session, Engine], Session] = lambda session, engine: session

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def tells_times(self) -> bool:
        return self.inner.tells_times

    def probe(self) -> Probe:
        return self.inner.probe()

    def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
        return self.inner.supports(graph, target)

    def precisions_here(self, target: Target) -> tuple[str, ...]:
        return self.inner.precisions_here(target)

    def options(self, target: Target, precision: str) -> dict[str, Any]:
        return self.inner.options(target, precision)

    def build(self, graph: PortableGraph, target: Target) -> Engine:
        return self.inner.build(self.given(graph), target)

    def open(self, engine: Engine, *, threads: int | None = None, streams: int | None = None) -> Session:
        return self.opened(self.inner.open(engine, threads=threads, streams=streams), engine)

    def times(self, engine: Engine, feeds: Mapping[str, Any], *, threads: int | None = None) -> EngineTimes:
        return self.inner.times(engine, feeds, threads=threads)

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        return self.inner.rehearse(graph, target)


class Changed:
    """A real session that waits before it answers, or answers something else."""

    def __init__(
        self,
        inner: Session,
        *,
        wait_s: float = 0.0,
        change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = lambda array: array,
    ) -> None:
        self._inner, self._wait_s, self._change = inner, wait_s, change
        self.inputs, self.outputs, self.in_flight = inner.inputs, inner.outputs, inner.in_flight

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        stop = time.perf_counter() + self._wait_s
        outputs = {name: self._change(array) for name, array in self._inner.infer(feeds).items()}
        while time.perf_counter() < stop:
            pass
        return outputs

    def submit(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Any:
        return self.infer(feeds)

    def collect(self, ticket: Any) -> dict[str, np.ndarray[Any, Any]]:
        outputs: dict[str, np.ndarray[Any, Any]] = ticket
        return outputs

    def layers(self) -> tuple[LayerRecord, ...]:
        return self._inner.layers()

    def describe(self) -> dict[str, str]:
        return self._inner.describe()

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
