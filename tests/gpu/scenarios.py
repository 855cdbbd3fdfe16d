"""What one process does with models and torch, in every order: ``python -m tests.gpu.scenarios '<json>'``.

Each scenario has a process of its own, since it matters who is the first to use the GPU and what is left at the end.
The last line of the output is ``done``.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgekit.runtime.model import Model
from tests.gpu.grounds import Ground, Machine, check, pretend

LEFT_OPEN: list[Any] = []


class Torch:
    """Work of torch on the device, with a tensor that must outlive what others do there."""

    def __init__(self, machine: Machine) -> None:
        import torch

        self._torch = torch
        self._device = machine.ground.torch_device
        self._kept = torch.arange(4096.0, device=self._device).reshape(64, 64)

    def check(self) -> None:
        """New work is right, and the old tensor is what it was."""
        torch = self._torch
        side = torch.full((64, 64), 2.0, device=self._device)
        product = (torch.eye(64, device=self._device) @ side).cpu()
        assert bool((product == 2).all())
        assert bool((self._kept.cpu().flatten() == torch.arange(4096.0)).all())
        if self._device == "cuda":
            with torch.cuda.stream(torch.cuda.Stream()):
                assert float((self._kept + 1).sum().cpu()) == float((torch.arange(4096.0) + 1).sum())


def torch_before(machine: Machine) -> None:
    torch = Torch(machine)
    torch.check()
    with machine.load() as model:
        check(model)
        torch.check()
        check(model)
    torch.check()
    Torch(machine).check()


def torch_between(machine: Machine) -> None:
    with machine.load() as model:
        check(model)
        torch = Torch(machine)
        torch.check()
        check(model)
        torch.check()
    torch.check()


def torch_after(machine: Machine) -> None:
    with machine.load() as model:
        check(model)
    torch = Torch(machine)
    torch.check()
    with machine.load() as model:
        check(model)
        torch.check()
    torch.check()


def torch_in_a_thread(machine: Machine) -> None:
    with machine.load() as model, ThreadPoolExecutor(2) as pool:

        def works() -> None:
            torch = Torch(machine)
            for _ in range(20):
                torch.check()

        def infers() -> None:
            for _ in range(20):
                check(model)

        for done in [pool.submit(works), pool.submit(infers)]:
            done.result(120)
        check(model)


def torch_frees_first(machine: Machine) -> None:
    torch = Torch(machine)
    model = machine.load()
    check(model)
    torch.check()
    library = torch._torch
    del torch
    gc.collect()
    if machine.ground.torch_device == "cuda":
        library.cuda.empty_cache()
    check(model)
    model.close()


def first_opened_is_closed_first(machine: Machine) -> None:
    _closed_in(machine, [0, 1, 2])


def last_opened_is_closed_first(machine: Machine) -> None:
    _closed_in(machine, [2, 1, 0])


def middle_one_is_closed_first(machine: Machine) -> None:
    _closed_in(machine, [1, 0, 2])


def _closed_in(machine: Machine, order: list[int]) -> None:
    models: dict[int, Model] = {number: machine.load(number % 2) for number in range(3)}
    for number in order:
        for model in models.values():
            check(model)
        models.pop(number).close()
    with machine.load() as model:
        check(model)


def nothing_is_closed(machine: Machine) -> None:
    """The process ends with models and tensors alive, referred to from a module."""
    torch = Torch(machine)
    LEFT_OPEN.extend([machine.load(0), torch, machine.load(1)])
    check(LEFT_OPEN[0])
    torch.check()
    check(LEFT_OPEN[2])


def everything_is_dropped(machine: Machine) -> None:
    """Nobody closes; the last reference goes, and others come after."""
    for index in (0, 1, 0):
        model = machine.load(index)
        check(model)
        del model
        gc.collect()
    with machine.load() as last:
        check(last)


SCENARIOS: Mapping[str, Callable[[Machine], None]] = {
    scenario.__name__: scenario
    for scenario in (
        torch_before,
        torch_between,
        torch_after,
        torch_in_a_thread,
        torch_frees_first,
        first_opened_is_closed_first,
        last_opened_is_closed_first,
        middle_one_is_closed_first,
        nothing_is_closed,
        everything_is_dropped,
    )
}


def main(task: dict[str, Any]) -> None:
    ground = Ground(target=task["target"], pretended=task["pretended"])
    folder = Path(task["folder"])
    first, second = (Path(path) for path in task["bundles"])
    # Undone by nobody: the process ends.
    gpu = pretend(pytest.MonkeyPatch(), folder) if ground.pretended else None
    machine = Machine(ground=ground, bundles=(first, second), cache=Path(task["cache"]), folder=folder, gpu=gpu)
    SCENARIOS[task["scenario"]](machine)
    sys.stdout.write("\ndone\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
