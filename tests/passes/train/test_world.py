"""Several processes on CPUs train as one does on the same batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekit.errors import StageError, UserError
from edgekit.passes.train.checkpoint import CHECKPOINT
from edgekit.passes.train.world import World, joined_world, leads
from tests.passes.train import processes
from tests.passes.train.coloured import coloured

ROOT = Path(__file__).resolve().parents[3]


def test_a_batch_is_shared_in_equal_parts() -> None:
    parts = [World(rank=rank, size=3).part(list(range(10))) for rank in range(3)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_alone_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined_world("cpu") as world:
        assert (world.rank, world.size, world.leads, world.gpus) == (0, 1, True, [])
        assert world.from_leader("word") == "word"
        assert torch.equal(world.mean(torch.ones(2)), torch.ones(2))


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="wants a GPU of its own, torch sees 0"), joined_world("cuda"):
        pass


@pytest.mark.parametrize(("size", "rank", "expected"), [("1", "0", True), ("2", "0", True), ("2", "1", False)])
def test_number_0_leads(monkeypatch: pytest.MonkeyPatch, size: str, rank: str, expected: bool) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    assert leads() is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [("pair.cc:537] Read error: Connection reset by peer", StageError), ("shapes do not fit", RuntimeError)],
)
def test_a_process_that_is_gone_is_no_error_of_the_others(
    monkeypatch: pytest.MonkeyPatch, message: str, expected: type[Exception]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    words = "another of the processes that train together has ended" if expected is StageError else message
    with pytest.raises(expected, match=words), joined_world("cpu"):
        raise RuntimeError(message)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["live", "frozen"])
def test_two_processes_train_as_one(tmp_path: Path, batch_norm: str) -> None:
    coloured(tmp_path / "data", 9)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "tests.passes.train.processes", str(tmp_path / "data"), batch_norm]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [*command, *arguments, str(tmp_path / "two"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    first, second = (torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in range(2))
    assert int(first["processes"]) == 2
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    alone = processes.train(tmp_path / "data", batch_norm, tmp_path / "one")
    before = processes.tensors_of(processes.program().graph)
    for name, value in alone.items():
        if name != "processes":
            torch.testing.assert_close(first[name], value.detach(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(before["head.weight"], first["head.weight"], atol=1e-3), "something was trained"
    assert [path.name for path in (tmp_path / "two").iterdir()] == [CHECKPOINT]
