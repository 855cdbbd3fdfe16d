"""The losses of a classifier against formulas written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edgekit.data import Sample
from edgekit.errors import ConfigError, DataError, UserError
from edgekit.objectives import ClassificationObjective, objective_for
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import ClassificationSpec

SPEC = ClassificationSpec(input=ImageInput(size=(4, 4)), labels=("a", "b", "c"))
SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])
OTHERS = torch.tensor([[1.0, 1.0, -1.0], [-0.5, 2.0, 0.0]])
TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.3, 0.7]])


def _made(activation: Any = "softmax", **options: Any) -> ClassificationObjective:
    return ClassificationObjective(spec=replace(SPEC, activation=activation), **options)


def _near(value: torch.Tensor, expected: float) -> None:
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy() -> None:
    p = SCORES.exp() / SCORES.exp().sum(1, keepdim=True)
    by_hand = -(p[0, 0].log() + 0.3 * p[1, 1].log() + 0.7 * p[1, 2].log()) / 2
    _near(_made().loss({"y": SCORES}, TARGETS), float(by_hand))


def test_label_smoothing_is_torch_s() -> None:
    labels = torch.tensor([2, 0])
    expected = F.cross_entropy(SCORES, labels, label_smoothing=0.1)
    _near(_made(label_smoothing=0.1).loss({"y": SCORES}, F.one_hot(labels, 3).float()), float(expected))


def test_class_weights() -> None:
    weights = (1.0, 2.0, 5.0)
    p = SCORES.softmax(1)
    by_hand = -(1 * p[0, 0].log() + 2 * 0.3 * p[1, 1].log() + 5 * 0.7 * p[1, 2].log()) / 2
    _near(_made(class_weights=weights).loss({"y": SCORES}, TARGETS), float(by_hand))


def test_focal_loss() -> None:
    labels = torch.tensor([0, 2])
    right = SCORES.softmax(1)[torch.arange(2), labels]
    by_hand = (-((1 - right) ** 2) * right.log()).mean()
    _near(_made(focal_gamma=2.0).loss({"y": SCORES}, F.one_hot(labels, 3).float()), float(by_hand))


def test_a_sure_answer_has_a_finite_gradient_in_the_focal_loss() -> None:
    scores = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    _made(focal_gamma=0.5).loss({"y": scores}, torch.tensor([[1.0, 0.0, 0.0]])).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_each_class_on_its_own() -> None:
    expected = F.binary_cross_entropy_with_logits(SCORES, TARGETS, reduction="none").sum(1).mean()
    _near(_made("sigmoid").loss({"y": SCORES}, TARGETS), float(expected))


def test_probabilities_as_outputs() -> None:
    softmax, none = _made().loss({"y": SCORES}, TARGETS), _made("none").loss({"y": SCORES.softmax(1)}, TARGETS)
    _near(none, float(softmax))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_hinton_s(temperature: float) -> None:
    p, q = ((scores / temperature).softmax(1) for scores in (OTHERS, SCORES))
    by_hand = temperature**2 * (p * (p / q).log()).sum(1).mean()
    _near(_made().divergence({"y": SCORES}, {"y": OTHERS}, temperature), float(by_hand))
    assert float(_made().divergence({"y": OTHERS}, {"y": OTHERS}, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_the_divergence_of_single_decisions() -> None:
    p, q = ((scores / 2).sigmoid() for scores in (OTHERS, SCORES))
    by_hand = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean()
    _near(_made("sigmoid").divergence({"y": SCORES}, {"y": OTHERS}, 2.0), float(by_hand))


def test_gradients_reach_the_student_only() -> None:
    student, teacher = SCORES.clone().requires_grad_(), OTHERS.clone()
    loss = _made().divergence({"y": student}, {"y": teacher}, 2.0) + _made().loss({"y": student}, TARGETS)
    loss.backward()
    assert student.grad is not None
    assert float(student.grad.abs().min()) > 0


def test_a_mean_over_parts_is_the_mean_over_the_whole() -> None:
    made = _made(class_weights=(1.0, 2.0, 5.0), focal_gamma=1.0, label_smoothing=0.1)
    parts = [made.loss({"y": SCORES[i : i + 1]}, TARGETS[i : i + 1]) for i in range(2)]
    _near(made.loss({"y": SCORES}, TARGETS), float(sum(parts)) / 2)


def test_labels_become_targets_and_targets_mix() -> None:
    made = _made()
    targets = made.encode([Sample(path=Path("x"), label=label) for label in (2, 0)])
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    mixed = made.mixed(targets, targets.flip(0), torch.tensor([0.75, 1.0]))
    assert mixed.tolist() == [[0.25, 0, 0.75], [1, 0, 0]]
    with pytest.raises(DataError, match="has no label"):
        made.encode([Sample(path=Path("x"), label=None)])


def test_a_trailing_image_size_of_one_is_flattened_and_a_named_output_is_taken() -> None:
    made = ClassificationObjective(spec=replace(SPEC, output="scores"))
    outputs = {"features": torch.zeros(2, 7), "scores": SCORES[:, :, None, None]}
    _near(made.loss(outputs, TARGETS), float(_made().loss({"y": SCORES}, TARGETS)))


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="expected 3 values, one per label, got 2"):
        _made().loss({"y": SCORES[:, :2]}, TARGETS)
    with pytest.raises(UserError, match="the model has none of that name"):
        ClassificationObjective(spec=replace(SPEC, output="logits")).loss({"logit": SCORES}, TARGETS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected"),
        ({"focal_gamma": -1.0}, "focal_gamma: expected 0 or more"),
        ({"class_weights": (1.0, 2.0)}, "class_weights: expected 3 numbers"),
        ({"class_weights": (1.0, 2.0, -1.0)}, "class_weights: expected 3 numbers"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _made(**wrong)


def test_the_table() -> None:
    assert objective_for(SPEC) == ClassificationObjective(spec=SPEC)
