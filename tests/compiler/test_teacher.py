"""Another network than the given one whose answers are learned: what it changes, and when it is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import edgekit
from edgekit.bundle.read import read_bundle
from edgekit.cli.main import main
from edgekit.compiler import CompileReport
from edgekit.compiler.shaping import DistillStage, PruneStage
from edgekit.errors import UserError
from edgekit.frontend import load_program
from edgekit.runtime.tasks import load_spec
from tests.compiler.world import World, write_images


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("train"), count=16, seed=50)


def shaped(world: World, output: Path, **options: object) -> CompileReport:
    return edgekit.compile(
        world.net,
        **{
            "target": "x86-cpu-legacy",
            "task": world.task,
            "data": world.data,
            "output": output,
            "samples": 16,
            "timing": False,
            "precision": "fp32",
            **options,
        },
    )


def test_a_teacher_changes_what_is_learned_and_not_what_is_measured(world: World, train: Path, tmp_path: Path) -> None:
    stages = (PruneStage(keep=0.6, align=1), DistillStage(epochs=2, batch_size=16, augmentation="none"))
    options = {"stages": stages, "train_data": train, "max_drop": 100.0}
    wrong = copy.deepcopy(world.net)
    with torch.no_grad():  # it takes each colour for the next
        wrong.head.linear.weight.copy_(wrong.head.linear.weight.roll(1, 0))  # type: ignore[union-attr, operator]
        wrong.head.linear.bias.copy_(wrong.head.linear.bias.roll(1, 0))  # type: ignore[union-attr, operator]
    own = shaped(world, tmp_path / "own.edge", **options)
    taught = shaped(world, tmp_path / "taught.edge", teacher=wrong, **options)
    given, teacher = (
        next(item for item in report.history["float"] if item.stage == "distill") for report in (own, taught)
    )
    assert given.details["teacher"]["name"] == teacher.details["teacher"]["name"] == "Residual"
    assert len(given.details["teacher"]["digest"]) == 64
    assert given.details["teacher"]["digest"] != teacher.details["teacher"]["digest"]
    assert teacher.summary.startswith("learned from 'Residual': 2 epochs")
    assert taught.float_accuracy is not None
    assert own.float_accuracy is not None
    assert taught.float_accuracy.value == own.float_accuracy.value == 1.0
    losses = [item.details["epochs"][0]["losses"]["divergence"] for item in (given, teacher)]
    assert losses[1] > 2 * losses[0]


def test_a_teacher_is_a_file_or_a_program_too(world: World, train: Path, tmp_path: Path) -> None:
    """Of the same weights: from a checkpoint, live, and as a program; what is learned is the same."""
    options = {"stages": (DistillStage(epochs=1, batch_size=16, alpha=1.0, augmentation="none"),), "train_data": train}
    program = load_program(world.net, task=load_spec(world.task))
    teachers = [
        {"teacher": world.weights, "teacher_arch": "tests.networks:module", "teacher_args": {"name": "residual"}},
        {"teacher": world.net},
        {"teacher": replace(program, name="wise")},
    ]
    found = []
    for number, teacher in enumerate(teachers):
        report = shaped(world, tmp_path / f"{number}.edge", max_drop=100.0, **teacher, **options)
        (record,) = [item for item in report.history["float"] if item.stage == "distill"]
        found.append(record.details["teacher"])
    assert [item["name"] for item in found] == ["colors", "Residual", "wise"]
    assert len({item["digest"] for item in found}) == 1


def test_a_teacher_that_does_not_fit_is_refused_before_the_long_work(
    world: World, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a stage was run")

    monkeypatch.setattr("edgekit.compiler.api.shape", started)
    five = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    with pytest.raises(UserError, match=r"teacher 'Sequential' does not fit student 'Residual': its outputs are"):
        shaped(world, tmp_path / "m.edge", teacher=five, distill=1, prune=0.5, train_data=train)
    labels = load_spec(world.task)
    other = replace(labels, labels=tuple(reversed(labels.labels)))  # type: ignore[call-arg, attr-defined]
    reversed_labels = load_program(world.net, task=other)
    with pytest.raises(UserError, match="its labels are others, or in another order"):
        shaped(world, tmp_path / "m.edge", teacher=reversed_labels, distill=1, train_data=train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "WEIGHTS"], "a teacher was given and nothing learns from it"),
        (["--qat", "1", "--train-data", "DATA", "--teacher", "WEIGHTS"], "nothing learns from it"),
        (["--distill", "1", "--train-data", "DATA", "--teacher-arch", "a:b"], "and no teacher"),
        (["--distill", "1", "--train-data", "DATA", "--teacher", "WEIGHTS"], "teacher: "),
        (["--distill", "1", "--train-data", "DATA", "--teacher", "no.pt2"], "teacher: no.pt2"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    world: World, tmp_path: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = {"DATA": str(world.data), "WEIGHTS": str(world.weights)}
    command = [
        *("compile", str(world.weights), "--arch", "tests.networks:module", "--arch-arg", "name=residual"),
        *("--task", str(world.task), "--data", str(world.data), "--target", "x86-cpu-legacy"),
        *("-o", str(tmp_path / "m.edge"), "--json"),
        *(paths.get(item, item) for item in arguments),
    ]
    assert main(command) == 2
    assert message in capfd.readouterr().out
    assert not (tmp_path / "m.edge").exists()


def test_the_command_line_takes_a_teacher(world: World, train: Path, tmp_path: Path) -> None:
    command = [
        *("compile", str(world.weights), "--arch", "tests.networks:module", "--arch-arg", "name=residual"),
        *("--task", str(world.task), "--data", str(world.data), "--target", "x86-cpu-legacy", "--samples", "16"),
        *("--teacher", str(world.weights), "--teacher-arch", "tests.networks:module", "--teacher-arg", "name=residual"),
        *("--distill", "1", "--train-data", str(train), "--max-drop", "100", "--no-timing", "--precision", "fp32"),
        *("-o", str(tmp_path / "m.edge")),
    ]
    assert main(command) == 0
    history = read_bundle(tmp_path / "m.edge").report()["history"]["float"]
    (record,) = [item for item in history if item["stage"] == "distill"]
    assert record["details"]["teacher"]["name"] == "colors"
    assert record["summary"].startswith("learned from 'colors': 1 epochs on")
