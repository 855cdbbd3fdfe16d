"""Models and torch in one process, and the end of it, in every order; see ``scenarios.py``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.gpu.grounds import ROOT, Machine, child_environment
from tests.gpu.scenarios import SCENARIOS

LIMIT_S = 300


@pytest.fixture
def torch_has_the_gpu(machine: Machine) -> None:
    """Torch without CUDA has nothing to say on a real GPU."""
    import torch

    if machine.ground.torch_device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU: install a build with CUDA")


def run(machine: Machine, scenario: str) -> subprocess.CompletedProcess[str]:
    task = {
        "scenario": scenario,
        "target": machine.ground.target,
        "pretended": machine.ground.pretended,
        "bundles": [str(path) for path in machine.bundles],
        "cache": str(machine.cache),
        "folder": str(machine.folder),
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu.scenarios", json.dumps(task)],
        cwd=ROOT,
        env=child_environment(machine),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def ends_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1] == "done", done.stdout[-500:]
    # What is raised while the interpreter ends does not change its exit code.
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "Exception ignored" not in done.stderr, done.stderr[-2000:]


@pytest.mark.usefixtures("torch_has_the_gpu")
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "torch" in name or name == "nothing_is_closed"])
def test_torch_works_in_the_same_process(machine: Machine, scenario: str) -> None:
    ends_well(run(machine, scenario))


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if "closed_first" in name or "dropped" in name])
def test_models_end_in_any_order(machine: Machine, scenario: str) -> None:
    ends_well(run(machine, scenario))


def test_every_scenario_is_run() -> None:
    """Each name is picked by one of the two tests above."""
    words = ("torch", "nothing_is_closed", "closed_first", "dropped")
    assert all(any(word in name for word in words) for name in SCENARIOS)
