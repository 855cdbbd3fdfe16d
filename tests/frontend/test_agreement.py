"""The comparison itself must be able to fail."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.frontend.agreement import TOLERANCE, disagreement, flat_tensors, random_like

X = (torch.linspace(-1, 1, 12).reshape(3, 4),)


def test_equal_answers_agree() -> None:
    assert disagreement(lambda x: x * 3, lambda x: (x + x + x,), X)[1] is None


def test_distance_is_relative_and_bounded() -> None:
    worst, why = disagreement(lambda x: x * 1000, lambda x: x * 1000 * (1 + 5 * TOLERANCE), X)
    assert 4 * TOLERANCE < worst < 6 * TOLERANCE
    assert why is not None
    assert "output 0 differs" in why
    assert disagreement(lambda x: x, lambda x: x * (1 + TOLERANCE / 10), X)[1] is None


def test_count_shape_and_type_are_compared() -> None:
    cases = [
        (lambda x: (x, x), lambda x: x, "1 outputs, expected 2"),
        (lambda x: x, lambda x: x[None], "expected torch.float32 (3, 4)"),
        (lambda x: x, lambda x: x.double(), "torch.float64"),
        (lambda x: x > 0, lambda x: x > 0.5, "differs in"),
        (lambda x: x / 0, lambda x: x * 0 + float("inf"), "infinite or NaN"),
    ]
    for wanted, found, words in cases:
        why = disagreement(wanted, found, X)[1]
        assert why is not None
        assert words in why


def test_a_model_that_writes_its_input_does_not_spoil_the_other_side() -> None:
    def writes(x: Tensor) -> Tensor:
        return x.mul_(2)

    assert disagreement(writes, lambda x: x * 2, X)[1] is None


def test_infinite_at_the_same_places_agree() -> None:
    assert disagreement(lambda x: (x - x[0, 0]).log(), lambda x: (x - x[0, 0]).log(), X)[1] is None


def test_random_inputs_are_seeded_and_larger() -> None:
    example = (torch.zeros(2, 3), torch.tensor([4, 5]), torch.tensor(7))
    first, second = random_like(example, 3, seed=1), random_like(example, 3, seed=1)
    assert [value.shape for value in first] == [(6, 3), (6,), ()]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], random_like(example, 3, seed=2)[0])
    assert first[1].tolist() == [4, 5] * 3


def test_nested_answers_are_flattened_in_order() -> None:
    a, b, c = torch.zeros(1), torch.ones(1), torch.ones(2)
    assert [
        value is wanted for value, wanted in zip(flat_tensors({"x": [a, None], "y": (b, c)}), (a, b, c), strict=True)
    ] == [True] * 3
