"""Quantization-aware training: it repairs, never makes worse, repeats itself, resumes, and says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from edgekit.augmentation import load_augmentation
from edgekit.data import Dataset, Sample
from edgekit.errors import ConfigError, UserError
from edgekit.objectives import ClassificationObjective, Outputs, TaskObjective
from edgekit.passes.contract import PassResult
from edgekit.passes.qat import Qat, QatOptions, qat
from edgekit.passes.qat.qat import _takes_frames
from edgekit.passes.train import Keeping, TrainImages
from edgekit.passes.train.checkpoint import CHECKPOINT
from edgekit.passes.train.mode import tensors_of
from edgekit.program import Program
from tests.networks import CONTEXT, folded, program, spec
from tests.passes.qat.coarse import distance, pair
from tests.passes.train.coloured import coloured

OPTIONS = QatOptions(epochs=6, batch_size=8, learning_rate=2e-3, step_rate=2.0, held_back=0.25, seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("train"), 16, labelled=False)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("labelled"), 8)


def _run(
    data: Dataset,
    options: QatOptions = OPTIONS,
    keeping: Keeping | None = None,
    objective: TaskObjective | None = None,
) -> PassResult:
    floating, quantized = pair()
    images = TrainImages(data=data)
    item = Qat(teacher=floating, images=images, options=options, objective=objective, keeping=keeping)
    item.check(quantized)
    return item.run(quantized, CONTEXT)


def _same(first: Program, second: Program) -> bool:
    mine, theirs = tensors_of(first.graph), tensors_of(second.graph)
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_it_repairs_most_of_what_coarse_grids_cost_on_other_images(data: Dataset, tmp_path: Path) -> None:
    floating, quantized = pair()
    given = {name: value.clone() for name, value in tensors_of(quantized.graph).items()}
    result = qat(quantized, floating, TrainImages(data=data), OPTIONS)
    frames = _frames(coloured(tmp_path, 20, seed=7, labelled=False))
    before, after = (distance(floating, item, frames) for item in (quantized, result))
    assert before > 1e-3
    assert after < 0.5 * before
    assert str(result.graph.graph) == str(quantized.graph.graph)
    assert all(torch.equal(value, given[name]) for name, value in tensors_of(quantized.graph).items())
    assert (result.inputs, result.outputs, result.task) == (quantized.inputs, quantized.outputs, quantized.task)
    record = result.history[-1]
    assert result.history[:-1] == quantized.history
    assert record.stage == "qat"
    assert record.changed > 0
    details = json.loads(json.dumps(record.details))
    assert details["criterion"] == "loss"
    assert details["after"] < 0.5 * details["before"]
    # Four weights, the image's grid is its pixels', and what the layers read.
    assert details["steps"]["learned"] == 9
    assert details["steps"]["fixed"] == 1
    assert details["steps"]["smallest_factor"] < 1 < details["steps"]["largest_factor"]
    assert [item.what for item in record.skipped] == ["step"]


def _frames(dataset: Dataset) -> torch.Tensor:
    return torch.stack([torch.from_numpy(cv2.imread(str(sample.path))) for sample in dataset.samples])


# The loss of the given program on the held-out images, and of two epochs of six steps each.
_CALLS = 1 + 2 * (6 + 1)


class _Interrupting:
    """The plain objective, until Ctrl-C in the middle of an epoch."""

    def __init__(self, *, left: int) -> None:
        self._task = ClassificationObjective(spec=spec())
        self.left = left

    def encode(self, samples: Sequence[Sample]) -> torch.Tensor:
        return self._task.encode(samples)

    def mixed(self, targets: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return self._task.mixed(targets, others, share)

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        return self._task.loss(outputs, targets)

    def to_dict(self) -> dict[str, Any]:
        return self._task.to_dict()

    def divergence(self, outputs: Outputs, teacher: Outputs, temperature: float) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self._task.divergence(outputs, teacher, temperature)


def test_what_is_worse_everywhere_is_not_kept(data: Dataset) -> None:
    # At such a rate nothing is learned.
    result = _run(data, replace(OPTIONS, epochs=2, learning_rate=3.0)).program
    _, quantized = pair()
    assert _same(result, quantized)
    record = result.history[-1]
    assert record.changed == 0
    (skipped,) = [item for item in record.skipped if item.what == "training"]
    assert "no epoch had a better held-out loss" in skipped.why
    assert record.details["chosen_epoch"] == 0


def test_the_same_seed_gives_the_same_program_and_another_gives_another(data: Dataset) -> None:
    options = replace(OPTIONS, epochs=2)
    torch.manual_seed(1)
    first = _run(data, options).program
    torch.manual_seed(2)
    assert _same(first, _run(data, options).program)
    assert not _same(first, _run(data, replace(options, seed=2)).program)


def test_steps_stay_after_their_part_and_weights_go_on(data: Dataset, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=4, freeze_after=0.5)
    _run(data, options, Keeping(folder=tmp_path))
    weights = torch.load(tmp_path / CHECKPOINT, weights_only=True)["weights"]

    half = tmp_path / "half"
    # The first half alone, by a schedule of the same length: steps frozen from the third epoch on are those of then.
    with pytest.raises(KeyboardInterrupt):
        _run(data, options, Keeping(folder=half), _Interrupting(left=_CALLS + 3))
    then = torch.load(half / CHECKPOINT, weights_only=True)["weights"]
    changes = [name for name in weights if name.endswith("_change")]
    assert len(changes) == 9
    assert all(torch.equal(weights[name], then[name]) for name in changes)
    assert not torch.equal(weights["stem.0.weight"], then["stem.0.weight"])
    assert any(bool(weights[name].any()) for name in changes)


def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(data: Dataset, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=4)
    whole = _run(data, options).program
    with pytest.raises(KeyboardInterrupt):
        _run(data, options, Keeping(folder=tmp_path), _Interrupting(left=_CALLS + 3))
    resumed = _run(data, options, Keeping(folder=tmp_path, resume=True)).program
    assert _same(whole, resumed)
    assert resumed.history[-1].details == whole.history[-1].details
    # Another rate of the steps is another training.
    with pytest.raises(UserError, match="pace"):
        _run(data, replace(options, step_rate=1.0), Keeping(folder=tmp_path, resume=True))


def test_with_labels_the_metric_decides(labelled: Dataset) -> None:
    options = replace(OPTIONS, epochs=2, alpha=0.5)
    details = _run(labelled, options).program.history[-1].details
    assert details["criterion"] == "top1"
    assert {"divergence", "task"} <= details["epochs"][0]["losses"].keys()
    # Without a say in the loss, labels make no difference at all.
    details = _run(labelled, replace(options, alpha=1.0)).program.history[-1].details
    assert details["criterion"] == "loss"


def test_steps_that_may_not_learn_stay(data: Dataset) -> None:
    result = _run(data, replace(OPTIONS, epochs=2, step_rate=0.0)).program
    _, quantized = pair()
    before, after = tensors_of(quantized.graph), tensors_of(result.graph)
    assert all(torch.equal(after[name], value) for name, value in before.items() if "scale" in name)
    assert not torch.equal(after["stem.0.weight"], before["stem.0.weight"])
    assert result.history[-1].details["steps"]["largest_factor"] == 1


def test_augmented_frames_are_whole_pixels_for_teacher_and_student(data: Dataset) -> None:
    floating, quantized = pair()
    images = TrainImages(data=data, augmentation=load_augmentation("cifar"))
    details = qat(quantized, floating, images, OPTIONS).history[-1].details
    assert details["after"] < details["before"]


def test_what_cannot_be_trained_is_refused_with_a_reason(data: Dataset) -> None:
    floating, quantized = pair()
    images = TrainImages(data=data)
    with pytest.raises(UserError, match="is not quantized"):
        Qat(teacher=floating, images=images).check(floating)
    with pytest.raises(UserError, match="is quantized itself"):
        Qat(teacher=quantized, images=images).check(quantized)
    with pytest.raises(UserError, match="another interface"):
        Qat(teacher=program("residual"), images=images).check(quantized)
    static = [replace(item, inputs=(replace(item.inputs[0], shape=(1, 16, 16, 3)),)) for item in (floating, quantized)]
    with pytest.raises(UserError, match="takes batches of 1 only"):
        Qat(teacher=static[0], images=images).check(static[1])
    bare = [replace(item, task=None) for item in (floating, quantized)]
    with pytest.raises(UserError, match="no task spec"):
        Qat(teacher=bare[0], images=images).check(bare[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step_rate": -1.0}, "step_rate: expected 0 or more"),
        ({"freeze_after": 1.5}, "freeze_after: expected a number from 0 to 1"),
        ({"held_back": 0.0}, "held_back: expected a number between 0 and 1"),
        ({"epochs": 0}, "epochs: expected at least 1"),
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"alpha": 2.0}, "alpha: expected a number from 0 to 1"),
    ],
)
def test_options_check_themselves(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QatOptions(**wrong)


def test_frames_are_told_from_float_images() -> None:
    assert _takes_frames(folded("residual"))
    assert not _takes_frames(program("residual"))
