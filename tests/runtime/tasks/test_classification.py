from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgekit.errors import ConfigError, StageError, UserError
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import Classification, ClassificationResult, ClassificationSpec

FRAME = (10, 20, 3)


def spec(**keys: Any) -> ClassificationSpec:
    return ClassificationSpec(**{"input": ImageInput(size=(8, 8)), "labels": ("a", "b", "c"), **keys})


def decode(values: Any, **keys: Any) -> ClassificationResult:
    return Classification().decode({"logits": np.asarray(values)}, spec(**keys), FRAME)


def test_softmax_is_a_distribution_and_survives_large_logits() -> None:
    result = decode(np.array([1000.0, 1001.0, 999.0], np.float32))
    expected = np.exp([-1.0, 0.0, -2.0]) / np.exp([-1.0, 0.0, -2.0]).sum()
    np.testing.assert_allclose(result.scores, expected, rtol=1e-6)
    assert (result.label, result.index) == ("b", 1)
    assert result.score == pytest.approx(expected[1])
    assert result.scores.dtype == np.float32


def test_sigmoid_and_none() -> None:
    result = decode(np.array([-200.0, 0.0, 200.0], np.float32), activation="sigmoid")
    np.testing.assert_array_equal(result.scores, np.array([0.0, 0.5, 1.0], np.float32))
    result = decode(np.array([3.0, 7.0, 5.0], np.float16), activation="none")
    assert result.scores.tolist() == [3.0, 7.0, 5.0]
    assert result.top() == (("b", 7.0), ("c", 5.0), ("a", 3.0))


def test_top_takes_as_many_as_asked_for_and_keeps_the_order_of_equals() -> None:
    result = decode(np.array([0.2, 0.4, 0.4], np.float32), activation="none", top=2)
    assert [label for label, _ in result.top()] == ["b", "c"]
    assert [label for label, _ in result.top(1)] == ["b"]
    assert len(result.top(10)) == 3


def test_the_named_output_is_taken_else_the_first() -> None:
    outputs = {"features": np.zeros(7, np.float32), "logits": np.array([[[0.0]], [[2.0]], [[1.0]]], np.float32)}
    assert Classification().decode(outputs, spec(output="logits"), FRAME).label == "b"
    with pytest.raises(UserError, match="'features': expected 3 values, one per label, got 7"):
        Classification().decode(outputs, spec(), FRAME)
    with pytest.raises(UserError, match="none of that name") as caught:
        Classification().decode(outputs, spec(output="logit"), FRAME)
    assert caught.value.hint == "did you mean 'logits'?"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_an_engine_that_answers_no_number_is_an_error(bad: float, activation: str) -> None:
    with pytest.raises(StageError, match="NaN or infinity"):
        decode(np.array([0.0, bad, 1.0], np.float32), activation=activation)


def test_the_answer_is_frozen_json_able_and_no_view_of_the_engines_output() -> None:
    raw = np.array([0.1, 0.7, 0.2], np.float32)
    result = decode(raw, activation="none")
    raw[:] = 0
    assert result.scores.tolist() == pytest.approx([0.1, 0.7, 0.2])
    with pytest.raises(ValueError, match="read-only"):
        result.scores[0] = 1
    table = json.loads(json.dumps(result.to_dict()))
    assert (table["task"], table["label"], table["index"]) == ("classification", "b", 1)
    assert [item["label"] for item in table["top"]] == ["b", "c", "a"]


def test_a_spec_checks_itself() -> None:
    with pytest.raises(ConfigError, match="top"):
        spec(top=0)
    with pytest.raises(ConfigError, match="labels"):
        spec(labels=())


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize(
    "shape", [(32, 32, 3), (32, 32), (1, 1), (32, 32, 1), (480, 640, 3), (1080, 1920, 3), (100, 3000)]
)
def test_the_picture_is_readable_on_any_frame(shape: tuple[int, ...], value: int) -> None:
    frame = np.full(shape, value, np.uint8)
    result = decode(np.array([0.1, 5.0, 0.2]), labels=("a", "a long label, über alles", "c" * 300))
    picture = result.draw(frame)
    assert np.all(frame == value)
    assert picture.dtype == np.uint8
    height, width, channels = picture.shape
    assert channels == 3
    assert min(height, width) >= 240 or (height, width) == shape[:2]
    assert height * shape[1] == width * shape[0]
    # Text is there, and light on dark whatever the frame: white strokes on a band at most a third as bright.
    text = picture.min(axis=2) > 200
    if value < 200:
        assert 50 < text.sum() < 0.5 * text.size
    assert picture[:3].max() <= 85
    assert np.all(picture[-1] == value)


def test_only_8_bit_frames_are_drawn_on() -> None:
    with pytest.raises(UserError, match=r"got float32 \(4, 4, 3\)"):
        decode(np.zeros(3)).draw(np.zeros((4, 4, 3), np.float32))
