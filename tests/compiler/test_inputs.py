"""Bad input ends in an error that says what, where and what to do, before any work and with nothing written."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import edgekit
from edgekit.compiler import CompileOptions
from edgekit.compiler.inputs import check_output, gather
from edgekit.errors import ConfigError, DataError, EdgekitError, ModelError, UserError
from tests.compiler.world import SPEC, World, write_images

OLD = "the old file"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "m.edge"
    path.parent.mkdir()
    path.write_text(OLD)
    return path


def refused(world: World, output: Path, **changes: Any) -> EdgekitError:
    arguments: dict[str, Any] = {
        "target": "x86-cpu",
        "task": world.task,
        "data": world.data,
        "output": output,
        "timing": False,
    }
    with pytest.raises(EdgekitError) as caught:
        edgekit.compile(world.net, **{**arguments, **changes})
    assert [path.name for path in output.parent.iterdir()] == ["m.edge"]
    assert output.read_text() == OLD
    return caught.value


@pytest.mark.parametrize(
    ("changes", "kind", "message", "hint"),
    [
        ({"task": None}, ConfigError, "without a task spec", "--task"),
        ({"task": "nowhere.toml"}, ConfigError, "nowhere.toml: cannot read", "path"),
        ({"target": "jetsn"}, ConfigError, "unknown target 'jetsn'", "did you mean 'jetson'"),
        ({"target": ["jetson", "jetson-orin-nano"]}, ConfigError, "target given twice: jetson-orin-nano", "once"),
        ({"recipe": "defalt"}, ConfigError, "unknown recipe 'defalt'", "did you mean 'default'"),
        ({"precision": "fp16"}, ConfigError, "target 'x86-cpu' does not run fp16", "its precisions: int8, bf16, fp32"),
        ({"target": ["x86-cpu", "jetson"], "precision": "fp32"}, ConfigError, "does not run fp32", "int8, fp16"),
        ({"precision": "int4"}, ConfigError, "unknown precision 'int4'", "did you mean 'int8'"),
        ({"precision": "int8", "data": None}, ConfigError, "int8 needs calibration images", "--data"),
        ({"golden_from_data": True, "data": None}, ConfigError, "golden_from_data needs data", "--data"),
        ({"max_drop": -1.0}, ConfigError, "max_drop: expected 0 points or more, got -1.0", ""),
        ({"max_drop": float("nan")}, ConfigError, "max_drop: expected 0 points or more, got nan", ""),
        ({"samples": 0}, ConfigError, "samples: expected at least 1, got 0", ""),
        ({"threads": 0}, ConfigError, "threads: expected at least 1, got 0", ""),
        ({"seed": -1}, ConfigError, "seed: expected 0 or more, got -1", ""),
        ({"data": "nowhere"}, DataError, "nowhere: no such folder", "check the path"),
    ],
)
def test_a_wrong_word_is_named(
    changes: dict[str, Any], kind: type[Exception], message: str, hint: str, world: World, output: Path
) -> None:
    error = refused(world, output, **changes)
    assert isinstance(error, kind)
    assert message in error.message
    assert hint in ("" if error.hint is None else error.hint)
    assert error.exit_code == 2


def test_an_empty_folder_is_refused(world: World, output: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images found" in refused(world, output, data=tmp_path / "empty").message


def test_class_folders_that_are_no_labels_are_refused(world: World, output: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", count=1)
    (data / "blue").rename(data / "bleu")
    error = refused(world, output, data=data)
    assert "bleu" in error.message
    assert error.hint is not None
    assert "did you mean 'blue'" in error.hint


def test_labels_that_do_not_fit_the_outputs_are_refused(world: World, output: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.toml"
    task.write_text(SPEC.replace(', "gray"]', "]"))
    data = write_images(tmp_path / "data", count=3, labels=("red", "green", "blue"))
    error = refused(world, output, task=task, data=data)
    assert "expected 3 values, one per label, got 4" in error.message


def test_a_size_that_the_exported_model_does_not_take_is_refused(world: World, output: Path, tmp_path: Path) -> None:
    exported = torch.export.export(world.net, (torch.zeros(1, 3, 32, 32),))
    torch.export.save(exported, tmp_path / "large.pt2")
    with pytest.raises(ModelError, match="1x3x32x32, but the task or the example inputs give 1x3x16x16"):
        edgekit.compile(tmp_path / "large.pt2", target="x86-cpu", task=world.task, output=output)
    assert output.read_text() == OLD


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, expected the name of a file"):
        check_output(tmp_path)
    with pytest.raises(UserError, match=r"the folder .*nowhere does not exist"):
        gather(CompileOptions(targets=("x86-cpu",), output=tmp_path / "nowhere" / "m.edge"))


def test_a_read_only_folder_is_refused() -> None:
    # Not below tmp_path, whose parents let only their owner in.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "locked"
        folder.mkdir(mode=0o555)
        # Root may write anywhere, so another process gives its rights up first.
        code = (
            "import os, sys, pathlib\n"
            "from edgekit.compiler.inputs import check_output\n"
            "from edgekit.errors import UserError\n"
            "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
            "try: check_output(pathlib.Path(sys.argv[1]))\n"
            "except UserError as error: print(error.message)\n"
        )
        command = [sys.executable, "-c", code, str(folder / "m.edge")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
        assert "cannot be written to" in done.stdout


def test_few_images_and_missing_classes_are_warned_about(world: World, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", count=4, labels=("red", "green"))
    inputs = gather(CompileOptions(targets=("x86-cpu",), task=world.task, data=data, eval_data=world.data))
    assert any("only 8 calibration images (at least 32" in line for line in inputs.warnings)
    assert any("2 of 4 classes have no calibration image: blue, gray" in line for line in inputs.warnings)


def test_without_data_the_warnings_say_what_data_would_bring(world: World) -> None:
    inputs = gather(CompileOptions(targets=("x86-cpu",), task=world.task))
    assert (inputs.calibration, inputs.evaluation, inputs.data.evaluation_source) == (None, None, "none")
    assert "int8" not in inputs.jobs[0].precisions
    assert "int8 was not tried: it needs calibration images" in inputs.warnings[0]
    assert "--eval-data" in inputs.warnings[1]


def test_unlabelled_images_calibrate_and_the_report_says_that_accuracy_is_unknown(world: World, tmp_path: Path) -> None:
    data = write_images(tmp_path / "flat", count=12, flat=True)
    inputs = gather(CompileOptions(targets=("x86-cpu",), task=world.task, data=data, samples=40))
    assert inputs.calibration is not None
    assert len(inputs.calibration) == 40
    assert inputs.evaluation is None
    assert inputs.data.evaluation_source == "none: --data has no labels"
    assert any("accuracy of the engine was not checked" in line for line in inputs.warnings)
    with pytest.raises(DataError, match="evaluation needs labels"):
        gather(CompileOptions(targets=("x86-cpu",), task=world.task, eval_data=data))


def test_the_split_of_data_is_disjoint_seeded_and_said(world: World) -> None:
    def parts(seed: int) -> tuple[set[Path], set[Path]]:
        inputs = gather(
            CompileOptions(targets=("x86-cpu",), task=world.task, data=world.data, samples=40, seed=seed, max_eval=20)
        )
        assert inputs.calibration is not None
        assert inputs.evaluation is not None
        assert "a seeded split of --data that calibration did not see" in inputs.data.evaluation_source
        return {item.path for item in inputs.calibration.samples}, {item.path for item in inputs.evaluation.samples}

    calibration, evaluation = parts(0)
    assert (len(calibration), len(evaluation)) == (40, 20)
    assert not calibration & evaluation
    assert parts(0) == (calibration, evaluation)
    assert parts(1)[0] != calibration


def test_eval_data_is_used_whole_and_named_without_its_path(world: World, tmp_path: Path) -> None:
    unseen = write_images(tmp_path / "unseen", count=5, seed=7)
    inputs = gather(
        CompileOptions(targets=("x86-cpu",), task=world.task, data=world.data, samples=80, eval_data=unseen)
    )
    assert inputs.data.evaluation_source == "--eval-data (unseen)"
    assert (inputs.data.calibration, inputs.data.evaluation) == (80, 20)
    assert inputs.warnings == ()


def test_eval_data_that_calibration_saw_is_warned_about(world: World) -> None:
    inputs = gather(
        CompileOptions(targets=("x86-cpu",), task=world.task, data=world.data, samples=40, eval_data=world.data)
    )
    assert any("40 of 80 evaluation images are calibration images too" in line for line in inputs.warnings)
