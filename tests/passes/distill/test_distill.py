"""A student learns from its teacher: with labels, without, and by its features."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edgekit.data import Dataset, ImageStore
from edgekit.errors import ConfigError, DataError, UserError
from edgekit.objectives import objective_for
from edgekit.passes import run_passes
from edgekit.passes.distill import Distill, Distillation, DistillOptions, distill
from edgekit.passes.distill.hints import hint_loss, matched_hints
from edgekit.passes.train import Seen, TrainImages, TrainOptions, fine_tune
from edgekit.passes.train.mode import tensors_of
from edgekit.passes.train.pixels import PixelScale
from edgekit.program import Program
from tests import networks
from tests.passes.train.coloured import coloured

TASK = objective_for(networks.spec())
OPTIONS = TrainOptions(epochs=5, batch_size=10, learning_rate=0.05, held_back=0.0)
IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("train"), 12)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("held"), 6, seed=1)


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> Program:
    return fine_tune(_program("residual"), TrainImages(data=data), OPTIONS)


@functools.cache
def _program(name: str) -> Program:
    return networks.program(name)


def _copy(program: Program) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in tensors_of(program.graph).items()}


def _divergence(student: Program, teacher: Program, data: Dataset) -> float:
    scale = PixelScale(networks.spec().input, torch.device("cpu"))
    (read,) = ImageStore(data, networks.spec().input).batches([range(len(data))])
    images = scale.normalised(scale.shares(torch.from_numpy(read.pixels)))
    (mine,), (theirs,) = student.run(images), teacher.run(images)
    return float(F.kl_div(mine.log_softmax(1), theirs.log_softmax(1), log_target=True, reduction="batchmean"))


def test_a_student_comes_near_its_teacher_and_leaves_it_alone(data: Dataset, others: Dataset, teacher: Program) -> None:
    student, before = _program("depthwise"), _copy(teacher)
    item = Distill(teacher=teacher, images=TrainImages(data=data, held_out=others), options=OPTIONS)
    result = run_passes(student, [item], networks.CONTEXT)
    assert all(torch.equal(before[name], value) for name, value in tensors_of(teacher.graph).items())
    assert all(parameter.requires_grad for parameter in teacher.graph.parameters())
    record = result.history[-1]
    assert record.stage == "distill"
    assert record.details["after"] > 0.7 > record.details["before"]
    assert set(record.details["epochs"][0]["losses"]) == {"loss", "divergence", "task"}
    assert _divergence(result, teacher, others) < 0.5 * _divergence(student, teacher, others)
    again = distill(student, teacher, TrainImages(data=data, held_out=others), OPTIONS)
    assert all(torch.equal(value, tensors_of(again.graph)[name]) for name, value in _copy(result).items())


def test_no_labels_are_needed_for_the_teacher_s_answers_alone(
    tmp_path: Path, others: Dataset, teacher: Program
) -> None:
    flat = coloured(tmp_path, 12, labelled=False)
    images, options = TrainImages(data=flat), replace(OPTIONS, held_back=0.25)
    student = _program("depthwise")
    result = distill(student, teacher, images, options, distillation=DistillOptions(alpha=1.0))
    details = result.history[-1].details
    assert (details["criterion"], details["higher_is_better"], details["held_out_images"]) == ("loss", False, 12)
    assert details["after"] < 0.5 * details["before"]
    assert details["per_class_after"] == {}
    assert _divergence(result, teacher, others) < 0.5 * _divergence(student, teacher, others)
    with pytest.raises(DataError, match="the training images have no labels") as caught:
        distill(student, teacher, images, options)
    assert caught.value.hint is not None
    assert "alpha = 1" in caught.value.hint


def test_the_loss_is_the_weighted_sum_of_its_parts(teacher: Program) -> None:
    options = DistillOptions(temperature=3.0, alpha=0.7, hints=("relu",), hint_weight=0.5)
    hints = matched_hints(_program("residual"), teacher, options.hints)
    objective = Distillation(teacher, TASK, options, hints)
    (wanted,) = teacher.run(IMAGES)
    mine = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.eye(4).repeat(3, 1)
    feature = torch.randn(12, 8, 16, 16)
    losses = objective(Seen(images=IMAGES, outputs={"y": mine}, features={"relu": feature}, targets=targets))
    p, q = (wanted / 3).softmax(1), (mine / 3).softmax(1)
    torch.testing.assert_close(losses["divergence"], 9 * (p * (p / q).log()).sum(1).mean())
    torch.testing.assert_close(losses["task"], F.cross_entropy(mine, targets.argmax(1)))
    expected = 0.7 * losses["divergence"] + 0.3 * losses["task"] + 0.5 * losses["hints"]
    torch.testing.assert_close(losses["loss"], expected)


def test_labels_alone_ask_no_teacher(teacher: Program) -> None:
    """A teacher whose answers are no numbers does not disturb the loss."""
    broken = teacher.copied()
    with torch.no_grad():
        next(broken.graph.parameters()).fill_(float("nan"))
    objective = Distillation(broken, TASK, DistillOptions(alpha=0.0))
    mine, targets = torch.randn(12, 4), torch.eye(4).repeat(3, 1)
    losses = objective(Seen(images=IMAGES, outputs={"y": mine}, features={}, targets=targets))
    assert set(losses) == {"loss", "task"}
    torch.testing.assert_close(losses["loss"], F.cross_entropy(mine, targets.argmax(1)))


def test_the_hint_loss_is_relative_to_the_teacher() -> None:
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert float(hint_loss(torch.zeros(2, 2), wanted)) == 1.0
    assert float(hint_loss(wanted, wanted)) == 0.0
    assert float(hint_loss(10 * (wanted + 1), 10 * wanted)) == pytest.approx(4 / 30)


@pytest.mark.parametrize("hints", [("relu",), ("relu=relu_2",), 1, 2])
def test_hints_are_learned(data: Dataset, teacher: Program, hints: Any) -> None:
    options = DistillOptions(alpha=1.0, hints=hints, hint_weight=5.0)
    student = networks.program("residual", seed=5)
    result = distill(student, teacher, TrainImages(data=data), OPTIONS, distillation=options)
    course = [epoch["losses"]["hints"] for epoch in result.history[-1].details["epochs"]]
    assert course[-1] < 0.9 * course[0]
    # The maps between the features are not part of the student.
    assert tensors_of(result.graph).keys() == tensors_of(student.graph).keys()
    assert str(result.graph.graph) == str(student.graph.graph)


def test_hints_between_networks_of_other_widths() -> None:
    student, teacher = _program("depthwise"), _program("residual")
    # Stages: 8x8 in the student; 16x16 and 8x8 in the teacher.
    (hint,) = matched_hints(student, teacher, 1)
    assert (hint.student_channels, hint.teacher_channels, hint.images) == (16, 8, True)
    with pytest.raises(UserError, match="'Depthwise' has only 1 stages"):
        matched_hints(student, teacher, 2)
    with pytest.raises(UserError, match="all but the channels must be equal"):
        matched_hints(student, teacher, ("stem_0=stem_0",))
    with pytest.raises(UserError, match="the graph has no node 'steem_0'"):
        matched_hints(student, teacher, ("steem_0",))


def test_hints_of_tokens() -> None:
    (hint,) = matched_hints(_program("attention"), _program("attention"), ("layer_norm",))
    assert (hint.student_channels, hint.images) == (16, False)


def test_a_teacher_that_does_not_fit_is_named(data: Dataset, teacher: Program) -> None:
    student, images = _program("depthwise"), TrainImages(data=data)
    assert teacher.task is not None
    other = replace(teacher, task=replace(teacher.task, input=replace(teacher.task.input, color="bgr")))
    with pytest.raises(UserError, match="it expects color = bgr, the student rgb"):
        distill(student, other, images, OPTIONS)
    outputs = (replace(teacher.outputs[0], shape=(None, 5)),)
    with pytest.raises(UserError, match=r"its outputs are \[\(5,\)\], the student's \[\(4,\)\]"):
        distill(student, replace(teacher, outputs=outputs), images, OPTIONS)
    other = replace(teacher, task=replace(teacher.task, labels=("red", "blue", "green", "gray")))
    with pytest.raises(UserError, match="its labels are others, or in another order"):
        distill(student, other, images, OPTIONS)
    with pytest.raises(UserError, match="training needs one float32 input"):
        distill(student, networks.folded("residual"), images, OPTIONS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"alpha": 1.1}, "alpha: expected a number from 0 to 1"),
        ({"hints": -1}, "hints: expected names or a number of 0 or more"),
        ({"hint_weight": 0.0}, "hint_weight: expected a number above 0"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillOptions(**wrong)
