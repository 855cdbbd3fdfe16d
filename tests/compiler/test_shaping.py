"""Stages before quantization, through ``edgekit.compile``: what is kept, rolled back, refused, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.cli.main import main
from edgekit.compiler import CompileOptions, CompileReport
from edgekit.compiler.shaping import DistillStage, PruneStage, QatStage, in_steps, parse_prune, read_stages
from edgekit.compiler.shaping.planfile import PlanFile
from edgekit.compiler.shaping.run import grouped
from edgekit.errors import ConfigError, DataError, ModelError, UserError
from edgekit.frontend import load_program
from edgekit.passes.prune import Plan, PruneOptions
from edgekit.passes.prune.latency import Trial
from edgekit.passes.train.checkpoint import digest_of
from edgekit.program import Program
from edgekit.runtime import load
from tests.compiler.world import HERE, World, picture, write_images
from tests.networks import LABELS, module


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


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_a_pruned_and_distilled_network_ships(world: World, train: Path, tmp_path: Path) -> None:
    stages = (PruneStage(keep=0.6, align=1), DistillStage(epochs=8, batch_size=16, augmentation="none"))
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=train, max_drop=10.0)
    (stage,) = report.stages
    assert stage.kept
    assert stage.parameters < parameters(world.net)
    assert stage.title == "prune channels to 60% of the MACs, distil for 8 epochs"
    assert stage.accuracy is not None
    assert stage.accuracy.drop is not None
    history = [record.stage for record in report.history["float"]]
    assert history.index("prune") < history.index("distill") < history.index("fold-batchnorm")
    assert report.data.training == 64
    assert not (tmp_path / "m.edge.training").exists()
    with load(tmp_path / "m.edge") as model:
        found = [model(picture(label, np.random.default_rng(77))).label for label in LABELS]
    assert found == list(LABELS)


def test_a_stage_that_costs_too_much_is_rolled_back(world: World, tmp_path: Path) -> None:
    report = shaped(world, tmp_path / "m.edge", stages=(PruneStage(keep=0.05, align=1),), max_drop=1.0)
    (stage,) = report.stages
    assert not stage.kept
    assert "rolled back" in stage.why
    assert any("was rolled back" in line for line in report.warnings)
    assert "prune" not in [record.stage for record in report.history["float"]]
    assert report.float_accuracy is not None
    assert report.targets[0].candidates[0].accuracy is not None
    assert report.targets[0].candidates[0].accuracy.value == report.float_accuracy.value


def test_drops_are_measured_against_the_given_network(world: World, tmp_path: Path) -> None:
    report = shaped(world, tmp_path / "m.edge", stages=(PruneStage(keep=0.05, align=1),), max_drop=100.0)
    (stage,) = report.stages
    candidate = report.targets[0].candidates[0]
    assert stage.kept
    assert stage.accuracy is not None
    assert stage.accuracy.drop is not None
    assert candidate.accuracy is not None
    assert candidate.accuracy.drop is not None
    assert stage.accuracy.drop.estimate > 1.0
    assert candidate.accuracy.drop.estimate == pytest.approx(stage.accuracy.drop.estimate, abs=3.0)


def test_images_that_judge_are_not_trained_on(world: World, tmp_path: Path) -> None:
    """The same folder for everything: the images of the accuracy gate are left out of the training."""
    stages = (DistillStage(epochs=1, batch_size=8, augmentation="none"),)
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=world.data, max_drop=100.0)
    assert report.data.training == 80 - report.data.evaluation
    assert any("among those that accuracy is judged by: left out" in note for note in report.data.notes)


def test_training_on_nothing_but_judging_images_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all of its 80 images are among those that accuracy is judged by"):
        shaped(
            world,
            tmp_path / "m.edge",
            stages=(DistillStage(epochs=1),),
            train_data=world.data,
            eval_data=world.data,
        )


def test_images_without_labels_teach_too(world: World, tmp_path: Path) -> None:
    flat = write_images(tmp_path / "flat", count=8, seed=3, flat=True)
    stages = (DistillStage(epochs=1, batch_size=8, augmentation="none"),)
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=flat, max_drop=100.0)
    assert report.stages[0].kept
    assert report.data.training == 32


def test_a_student_takes_the_networks_place(world: World, train: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    small = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    stages = (DistillStage(epochs=12, batch_size=8, learning_rate=0.1, augmentation="none"),)
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=train, student=small, max_drop=30.0)
    assert report.stages[0].kept
    assert report.stages[0].parameters == parameters(small)
    assert report.name == type(world.net).__name__


def test_a_student_is_drawn_from_the_seed(
    world: World, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a training could not be resumed, nor shared by processes: each would have a student of its own."""
    drawn: list[Program] = []

    def noted(program: Program, *_: object, **__: object) -> None:
        drawn.append(program)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekit.compiler.api.shape", noted)
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)
        with pytest.raises(KeyboardInterrupt):
            shaped(
                world,
                tmp_path / "m.edge",
                student="tests.passes.train.processes:NoDropout",
                distill=1,
                train_data=train,
                seed=seed,
            )
    first, second, other = (digest_of(item) for item in drawn)
    assert first == second != other


def test_the_given_network_ships_where_a_student_fails_to_learn(world: World, train: Path, tmp_path: Path) -> None:
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    nn.init.zeros_(blind[2].weight)  # type: ignore[arg-type]
    stages = (DistillStage(epochs=1, learning_rate=1e-6),)
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=train, student=blind, max_drop=1.0)
    assert not report.stages[0].kept
    assert report.targets[0].candidates[0].accuracy is not None
    assert report.float_accuracy is not None
    assert report.targets[0].candidates[0].accuracy.value == report.float_accuracy.value


def test_an_interrupted_training_is_kept_and_resumed(
    world: World, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.passes.train import loop

    stages = (PruneStage(keep=0.6, align=1), DistillStage(epochs=3, batch_size=16, augmentation="none"))
    options = {"stages": stages, "train_data": train, "max_drop": 100.0}
    whole = shaped(world, tmp_path / "whole.edge", **options)
    step = loop._Training._epoch

    def interrupted(self: object, epoch: int, bar: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        step(self, epoch, bar)  # type: ignore[arg-type]

    monkeypatch.setattr(loop._Training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shaped(world, tmp_path / "cut.edge", **options)
    monkeypatch.undo()
    assert list((tmp_path / "cut.edge.training").rglob("training.pt"))
    (tmp_path / "cut.edge.training" / "mine.txt").write_text("not edgekit's")
    with pytest.raises(UserError, match="resume"):
        shaped(world, tmp_path / "cut.edge", **options)
    resumed = shaped(world, tmp_path / "cut.edge", resume=True, **options)
    assert resumed.content_digest == whole.content_digest
    assert not (tmp_path / "whole.edge.training").exists()
    assert [path.name for path in (tmp_path / "cut.edge.training").iterdir()] == ["mine.txt"]


def test_int8_itself_is_trained(world: World, train: Path, tmp_path: Path) -> None:
    options = {
        "precision": "int8",
        "recipe": "fast",
        "train_data": train,
        "stages": (QatStage(epochs=2, batch_size=16),),
    }
    report = shaped(world, tmp_path / "m.edge", **options)
    (record,) = [item for item in report.history["int8 1: x86-cpu-legacy"] if item.stage == "qat"]
    assert record.details["steps"]["learned"] > 0
    assert len(record.details["epochs"]) == 2
    unused = [line for line in report.warnings if "its training was not used" in line]
    assert bool(unused) == (record.details["chosen_epoch"] == 0)
    assert report.targets[0].shipped == ("int8",)
    with load(tmp_path / "m.edge") as model:  # its self-test holds the engine against the trained program
        assert model(picture("green", np.random.default_rng(5))).label == "green"


def test_a_fixed_batch_is_refused_before_the_long_work(world: World, train: Path, tmp_path: Path) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(1, -1))

    with pytest.raises(ModelError, match="takes one image at a time"):
        edgekit.compile(
            One().eval(),
            target="x86-cpu-legacy",
            task=world.task,
            data=world.data,
            batch=4,
            prune=0.5,
            output=tmp_path / "m.edge",
        )


def test_training_of_int8_comes_last() -> None:
    with pytest.raises(ConfigError, match="comes last"):
        CompileOptions(stages=(QatStage(epochs=1), PruneStage(keep=0.5)), train_data=Path("train"))


def test_a_recipe_file_holds_the_stages(world: World, train: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'calibration = "fast"\n[[stage]]\ndo = "prune"\nkeep = 0.6\nalign = 1\n'
        '[[stage]]\ndo = "distill"\nepochs = 1\nbatch_size = 16\naugmentation = "none"\n'
    )
    report = shaped(world, tmp_path / "m.edge", recipe=str(recipe), train_data=train, max_drop=100.0)
    assert [stage.title for stage in report.stages] == ["prune channels to 60% of the MACs, distil for 1 epoch"]
    with pytest.raises(ConfigError, match="given twice"):
        shaped(world, tmp_path / "m.edge", recipe=str(recipe), train_data=train, distill=2)


def test_a_calibration_recipe_is_no_stage_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\ntitle = "Mine"\n')
    assert read_stages(tmp_path / "mine.toml") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[stage]]\nkeep = 0.5\n", r"stage\[0\]: expected a table with do"),
        ('[[stage]]\ndo = "prun"\nkeep = 0.5\n', "did you mean 'prune'"),
        ('[[stage]]\ndo = "prune"\nkep = 0.5\n', "did you mean 'keep'"),
        ('[[stage]]\ndo = "prune"\nkeep = 1.5\n', "above 0 and below 1"),
        ('[[stage]]\ndo = "prune"\n', "expected either 'keep' or 'latency'"),
        ('[[stage]]\ndo = "distill"\nepochs = 0\n', "at least 1"),
        ('[[stage]]\ndo = "distill"\nepochs = 1\nlearning_rate = -1.0\n', "learning_rate: expected a number above 0"),
        ('[[stage]]\ndo = "qat"\nepochs = 1\nfreeze_after = 2.0\n', "freeze_after: expected a number from 0 to 1"),
        ("stage = 3\n", r"begun with \[\[stage\]\]"),
        ('calibrate = "fast"\n[[stage]]\ndo = "prune"\nkeep = 0.5\n', "did you mean 'calibration'"),
    ],
)
def test_wrong_stage_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_stages(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["half", "channels=0.5", "latency", "0", "1.0", "nan", "blocks=", "=0.5"])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_prune(text)


def test_a_training_directly_behind_a_pruning_is_judged_with_it() -> None:
    prune, train = PruneStage(keep=0.5), DistillStage(epochs=1)
    assert grouped([prune, train, train, prune]) == ((prune, train), (train,), (prune,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distill", "1"], "training needs images to train on"),
        (["--qat", "1"], "training needs images to train on"),
        (["--qat", "1", "--train-data", "DATA", "--precision", "fp32"], "quantization-aware training is for int8"),
        (["--train-data", "DATA"], "nothing trains on it"),
        (["--resume"], "no training to resume"),
        (["--prune", "1.5"], "above 0 and below 1"),
        (["--prune-exclude", "head"], "nothing is pruned"),
        (["--student", "tests.networks:module"], "a student needs training"),
        (["--prune", "0.5", "--prune-exclude", "hed.*"], "no layer is called 'hed"),
    ],
)
def test_the_command_line_says_what_is_missing(
    world: World, tmp_path: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        *("compile", str(world.weights), "--arch", "tests.networks:module", "--arch-arg", "name=residual"),
        *("--task", str(world.task), "--data", str(world.data), "--target", "x86-cpu-legacy"),
        *("-o", str(tmp_path / "m.edge"), "--json"),
        *(str(world.data) if item == "DATA" else item for item in arguments),
    ]
    assert main(command) == 2
    assert message in capfd.readouterr().out
    assert not (tmp_path / "m.edge").exists()


def test_the_command_line_prunes(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [
        *("compile", str(world.weights), "--arch", "tests.networks:module", "--arch-arg", "name=residual"),
        *("--task", str(world.task), "--data", str(world.data), "--target", "x86-cpu-legacy", "--samples", "16"),
        *("--prune", "blocks=0.9", "--max-drop", "100", "--no-timing", "-o", str(tmp_path / "m.edge"), "--json"),
    ]
    assert main(command) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["stages"][0]["title"] == "prune blocks to 90% of the MACs"
    assert document["stages"][0]["macs"] > 0


def test_a_latency_is_met_and_reported(
    world: World, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    report = shaped(
        world,
        tmp_path / "m.edge",
        target=HERE,
        precision="int8",
        prune="latency=0.9",
        distill=1,
        train_data=train,
        max_drop=100.0,
    )
    (stage,) = report.stages
    assert stage.title == "prune channels and blocks to 90% of the time, distil for 1 epoch"
    assert stage.latency is not None
    assert stage.latency.target == HERE
    assert stage.latency.precision == "int8"
    assert stage.latency.after_ms > 0
    assert stage.latency.ratio.low <= stage.latency.ratio.estimate <= stage.latency.ratio.high
    (record,) = [item for item in report.history["float"] if item.stage == "prune"]
    assert record.details["asked"] == {"keep": None, "latency": 0.9}
    assert record.details["trials"]
    assert list((tmp_path / "cache" / "edgekit" / "layer-times").iterdir())
    assert f"int8 on {HERE}" in report.to_text()


def test_a_latency_on_a_target_that_is_not_here(world: World, train: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="latency cannot be measured here: jetson"):
        shaped(world, tmp_path / "m.edge", target="jetson-orin-nano", precision="int8", prune="latency=0.5")
    with pytest.raises(ConfigError, match=f"latency on 'rtx': compiled for is only {HERE}"):
        shaped(world, tmp_path / "m.edge", target=HERE, prune="latency=0.5@rtx")


def test_a_pruning_in_steps_ends_where_one_step_would(world: World, train: Path, tmp_path: Path) -> None:
    training = DistillStage(epochs=4, batch_size=16, augmentation="none")
    stages = (PruneStage(keep=0.4, align=1, steps=2), training)
    report = shaped(world, tmp_path / "m.edge", stages=stages, train_data=train, max_drop=100.0)
    records = [item.stage for item in report.history["float"] if item.stage in ("prune", "distill")]
    assert records == ["prune", "distill", "prune", "distill"]
    (stage,) = report.stages
    whole = next(item for item in report.history["float"] if item.stage == "prune").details["macs_before"]
    assert 0.25 < stage.macs / whole <= 0.4
    epochs = [len(item.details["epochs"]) for item in report.history["float"] if item.stage == "distill"]
    assert epochs == [2, 2]


def test_steps_need_a_training_behind_them() -> None:
    with pytest.raises(ConfigError, match="2 steps need a training behind them"):
        CompileOptions(stages=(PruneStage(keep=0.4, steps=2),))


def test_steps_share_the_epochs_and_the_ratio() -> None:
    prune, training = PruneStage(latency=0.25, steps=2), DistillStage(epochs=5)
    assert in_steps((prune, training)) == (
        PruneStage(latency=0.5),
        DistillStage(epochs=2),
        PruneStage(latency=0.25),
        DistillStage(epochs=3),
    )


def test_what_was_chosen_is_kept_for_a_training_that_is_resumed(tmp_path: Path) -> None:
    program = load_program(module("residual"), task=None, example_inputs=(torch.randn(1, 3, 16, 16),))
    options, plan = PruneOptions(keep=0.5), Plan(units=(3, 5), trials=(Trial(predicted=0.5, measured=0.6),))
    PlanFile(folder=tmp_path / "1", resume=False).write(plan, program, options)
    resumed = PlanFile(folder=tmp_path / "1", resume=True)
    assert resumed.read(program, options) == plan
    with pytest.raises(UserError, match="another network or other options"):
        resumed.read(program, PruneOptions(keep=0.6))
    with pytest.raises(UserError, match="a pruning was chosen here before"):
        PlanFile(folder=tmp_path / "1", resume=False).read(program, options)
    (tmp_path / "1" / "plan.json").write_text("{")
    with pytest.raises(UserError, match="not a pruning that edgekit chose"):
        resumed.read(program, options)
    assert PlanFile(folder=tmp_path / "2", resume=True).read(program, options) is None
