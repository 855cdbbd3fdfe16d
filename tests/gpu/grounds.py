"""Where the GPU tests stand: on a real GPU, or on a pretended one, which shows that the tests themselves are right.

What passes on pretended ground says nothing about a GPU, its driver or NVIDIA's libraries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu_machine import TARGETS, missing, refusal
from benchmarks.soak import used_device_bytes
from edgekit.bundle import Bundle, Entry
from edgekit.progress import SilentProgress
from edgekit.runtime import load
from edgekit.runtime.cuda import open_device
from edgekit.runtime.golden import golden_errors
from edgekit.runtime.model import Model
from edgekit.runtime.tensorrt import Flavour
from tests.runtime.nvidia import MEMORY_BYTES, Gpu, bindings, install
from tests.runtime.pretended_tensorrt import stand_in_builder, tensorrt

ROOT = Path(__file__).resolve().parents[2]
STAND_IN_VERSION = "10.3.0"
QUIET = SilentProgress()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A target, on a GPU that is real or not."""

    target: str
    pretended: bool

    @property
    def flavour(self) -> Flavour:
        return TARGETS[self.target]

    @property
    def torch_device(self) -> str:
        return "cpu" if self.pretended else "cuda"


def _ground(target: str, *, pretended: bool) -> Any:
    lacking = "" if pretended else missing(TARGETS[target])
    marks = [] if pretended else [pytest.mark.gpu, pytest.mark.skipif(bool(lacking), reason=f"no GPU: {lacking}")]
    return pytest.param(
        Ground(target=target, pretended=pretended), id=f"{'pretended-' if pretended else ''}{target}", marks=marks
    )


# One pretended ground is enough to see that the tests are right.
GROUNDS = [_ground("rtx", pretended=True), *(_ground(target, pretended=False) for target in TARGETS)]


def skip_where_refused(flavour: Flavour) -> None:
    """Skips what needs a GPU that this library does not run on, with the library's words."""
    reason = refusal(flavour)
    if reason:
        pytest.skip(f"{flavour.title} does not run on this GPU: {reason}")


def stand_ins(folder: Path) -> Path:
    """Makes a folder in which the builder's process finds stand-ins for both libraries."""
    folder.mkdir()
    for flavour in TARGETS.values():
        stand_in_builder(folder, flavour.package)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Makes the builder's process take the stand-ins, which note each build in ``builds.txt``."""
    return {"PYTHONPATH": str(folder), "BUILDS": str(folder / "builds.txt")}


def pretended_driver(gpu: Gpu) -> dict[str, ModuleType]:
    """cuda-bindings with what the soak asks of them besides."""
    modules = bindings(gpu)
    # The driver says free and total.
    modules["cuda.bindings.driver"].cuMemGetInfo = lambda: (  # type: ignore[attr-defined]
        0,
        MEMORY_BYTES - sum(len(memory) for memory in list(gpu.live.values())),
        MEMORY_BYTES,
    )
    return modules


def pretend(patch: pytest.MonkeyPatch, folder: Path) -> Gpu:
    """Puts a pretended driver and pretended libraries into this process."""
    gpu = Gpu()
    install(patch, {"pycuda": None, **pretended_driver(gpu)})
    for flavour in TARGETS.values():
        install(patch, tensorrt(gpu, flavour.package, None, version=STAND_IN_VERSION))
    for name, value in environment(folder).items():
        patch.setenv(name, value)
    return gpu


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a test works with.

    Attributes:
        ground: Where it stands.
        bundles: Two models for the ground's target.
        cache: Where engines are kept that tests share.
        folder: The stand-ins'; used on pretended ground alone.
        gpu: The pretended one.
    """

    ground: Ground
    bundles: tuple[Path, Path]
    cache: Path
    folder: Path
    gpu: Gpu | None

    def load(self, index: int = 0, *, cache: Path | None = None, **keys: Any) -> Model:
        """Loads one of the two models; its engine is built where the cache does not have it."""
        options: dict[str, Any] = {"target": self.ground.target, "cache_dir": self.cache if cache is None else cache}
        return load(self.bundles[index], **{**options, **keys})

    def builds(self) -> int | None:
        """How often the pretended builder ran; None on a real GPU, where nobody counts."""
        if not self.ground.pretended:
            return None
        path = self.folder / "builds.txt"
        return len(path.read_text().splitlines()) if path.exists() else 0


@contextmanager
def device_bytes() -> Iterator[Callable[[], int]]:
    """Gives a function that says how much of the device's memory is in use."""
    device = open_device()
    try:
        yield lambda: used_device_bytes(device)
    finally:
        device.close()


def golden(bundle: Bundle, entry: Entry) -> tuple[list[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns a bundle's golden inputs, one by one, and what the program answered to all of them."""
    inputs = {name: bundle.array(file) for name, file in entry.golden.inputs.items()}
    outputs = {name: bundle.array(file) for name, file in entry.golden.outputs.items()}
    count = len(next(iter(inputs.values())))
    return [{name: value[index : index + 1] for name, value in inputs.items()} for index in range(count)], outputs


def check(model: Model) -> None:
    """The model answers the golden inputs as its program did."""
    inputs = {name: model.bundle.array(file) for name, file in model.entry.golden.inputs.items()}
    outputs = {name: model.bundle.array(file) for name, file in model.entry.golden.outputs.items()}
    errors = golden_errors(model.session.infer, inputs, outputs)
    assert errors
    assert max(errors.values()) <= model.entry.golden.rel_l2, errors


def child_environment(machine: Machine) -> dict[str, str]:
    """The environment of a fresh process that stands where the machine does."""
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    if machine.ground.pretended:
        paths = os.pathsep.join([str(ROOT), str(machine.folder)])
        found |= {**environment(machine.folder), "PYTHONPATH": paths}
    return found
