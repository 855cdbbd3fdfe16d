"""``torchrun -m edgekit compile``: killed and resumed it ends as if nothing had been, and as one process does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.passes.train.checkpoint import CHECKPOINT
from edgekit.runtime import load
from tests.compiler.torchrun import Torchrun
from tests.compiler.world import SPEC, model_inputs, picture, write_images
from tests.networks import LABELS
from tests.passes.train.processes import NoDropout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of torchrun in /proc"),
]
DISTILLED = """
[[stage]]
do = "prune"
keep = 0.5
align = 1
[[stage]]
do = "distill"
epochs = 12
batch_size = 16
learning_rate = 0.05
augmentation = "none"
"""
INT8 = """
[[stage]]
do = "qat"
epochs = 6
batch_size = 16
learning_rate = 0.001
augmentation = "none"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in a file, its task, images and a recipe: what a user has."""
    root = tmp_path_factory.mktemp("torchrun")
    (root / "task.toml").write_text(SPEC)
    (root / "recipe.toml").write_text('calibration = "fast"' + DISTILLED + INT8)
    (root / "int8.toml").write_text('calibration = "fast"' + INT8)
    write_images(root / "data", count=12)
    # Without labels epochs are compared by the divergence, which every epoch changes.
    write_images(root / "train", count=24, seed=50, flat=True)
    torch.manual_seed(0)
    net, (images, labels) = NoDropout(), model_inputs(8, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    # One channel is large and the next layer takes it back: the others get few steps of int8, which training mends.
    with torch.no_grad():
        for norm in (net.stem[1].weight, net.stem[1].bias):
            norm[0] *= 40
        net.deep[0].weight[:, 0] /= 40
    any_batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net.eval(), (images[:2],), dynamic_shapes=any_batch), root / "net.pt2")
    return root


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """The report of two processes that nothing disturbed."""
    code, report, said = Torchrun(words(folder, folder / "whole.edge")).ended()
    assert code == 0, said
    assert not (folder / "whole.edge.training").exists()
    return report


def words(folder: Path, output: Path, *more: str, recipe: str = "recipe") -> list[str]:
    return [
        *(str(folder / "net.pt2"), "--task", str(folder / "task.toml"), "--data", str(folder / "data")),
        *("--train-data", str(folder / "train"), "--target", "x86-cpu-legacy", "--samples", "16", "--no-timing"),
        *("--precision", "int8", "--max-drop", "100", "--recipe", str(folder / f"{recipe}.toml"), "-o", str(output)),
        *more,
    ]


def test_killed_twice_it_ends_as_if_it_had_not_been(folder: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    output, checkpoints = tmp_path / "cut.edge", tmp_path / "cut.edge.training"
    code, answer, said = Torchrun(words(folder, output)).killed_in_training(checkpoints / "1-2-distill", signal.SIGINT)
    assert (code, answer["error"]) == (1, "Interrupted")
    assert said.count("error: interrupted") == 1
    assert "forcefully exiting" not in said, "a process hung until torchrun killed it"
    assert 0 < epochs_in(checkpoints / "1-2-distill") < 12

    # The int8 program does not exist before the first training is done: this one was taken up, and ended.
    Torchrun(words(folder, output, "--resume")).killed_in_training(checkpoints / "int8-1", signal.SIGKILL)
    assert epochs_in(checkpoints / "1-2-distill") == 12
    assert 0 < epochs_in(checkpoints / "int8-1") < 6
    assert not output.exists()

    code, resumed, said = Torchrun(words(folder, output, "--resume")).ended()
    assert code == 0, said
    assert resumed["content_digest"] == whole["content_digest"]


def test_two_processes_distil_as_one(folder: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    alone = compile_alone(folder, tmp_path / "one.edge", recipe="recipe")
    assert_trained_alike(alone, whole, "float", "distill", epochs=12)
    assert_alike(tmp_path / "one.edge", folder / "whole.edge", atol=0.02)


def test_two_processes_train_int8_as_one(folder: Path, tmp_path: Path) -> None:
    code, report, said = Torchrun(words(folder, tmp_path / "two.edge", recipe="int8")).ended()
    assert code == 0, said
    alone = compile_alone(folder, tmp_path / "one.edge", recipe="int8")
    # What lies between two steps of int8 goes up in one and down in the other, and from there on they drift.
    assert_trained_alike(alone, report, "int8 1: x86-cpu-legacy", "qat", epochs=1)
    assert_alike(tmp_path / "one.edge", tmp_path / "two.edge", atol=0.02)


def compile_alone(folder: Path, output: Path, *, recipe: str) -> dict[str, Any]:
    """What ``words`` asks for, in this process."""
    return edgekit.compile(
        folder / "net.pt2",
        target="x86-cpu-legacy",
        task=folder / "task.toml",
        data=folder / "data",
        train_data=folder / "train",
        samples=16,
        timing=False,
        precision="int8",
        max_drop=100,
        recipe=str(folder / f"{recipe}.toml"),
        output=output,
    ).to_dict()


def epochs_in(folder: Path) -> int:
    """How many epochs a training has done, by its checkpoint."""
    return int(torch.load(folder / CHECKPOINT, weights_only=True)["epoch"])


def assert_trained_alike(
    alone: dict[str, Any], shared: dict[str, Any], scheme: str, stage: str, *, epochs: int
) -> None:
    """One process and two must have gone through the same losses for so long, and both have learned something."""
    (ours,), (theirs,) = (
        [record["details"] for record in report["history"][scheme] if record["stage"] == stage]
        for report in (alone, shared)
    )
    assert (ours["processes"], theirs["processes"]) == (1, 2)
    assert max(ours["after"], theirs["after"]) < 0.5 * ours["before"]
    for one, two in zip(ours["epochs"][:epochs], theirs["epochs"][:epochs], strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
        assert two["held_out"] == pytest.approx(one["held_out"], rel=1e-3)


def assert_alike(first: Path, second: Path, *, atol: float) -> None:
    """Two bundles must give the same scores."""
    generator = np.random.default_rng(7)
    frames = [picture(label, generator) for label in LABELS for _ in range(4)]
    with load(first) as one, load(second) as two:
        ours, theirs = (np.stack([model(frame).scores for frame in frames]) for model in (one, two))
    np.testing.assert_allclose(theirs, ours, atol=atol)
    assert ours.std(axis=0).max() > 0.1, "the network tells images apart"
