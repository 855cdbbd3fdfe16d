"""Classification's metric: top-1, top-5, per class, and the single samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from edgekit.data import Sample
from edgekit.errors import ConfigError, DataError, InternalError
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import ClassificationResult, ClassificationSpec
from edgekit.tasks import get_task

LABELS = tuple(f"class {number}" for number in range(8))
SPEC = ClassificationSpec(labels=LABELS, input=ImageInput(size=(4, 4)))


def result(scores: np.ndarray) -> ClassificationResult:  # type: ignore[type-arg]
    index = int(np.argmax(scores))
    return ClassificationResult(
        index=index, label=LABELS[index], score=float(scores[index]), scores=scores.astype(np.float32), labels=LABELS
    )


def sample(label: int | None) -> Sample:
    return Sample(path=Path("image.png"), label=label)


def test_accuracies_match_an_independent_implementation() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((300, 8))
    truth = generator.integers(0, 7, 300)
    metric = get_task("classification").metric(SPEC)
    for row, label in zip(scores, truth, strict=True):
        metric.update(result(row), sample(int(label)))
    report = metric.value()
    assert report.value == pytest.approx(top_k_accuracy_score(truth, scores, k=1, labels=range(8)))
    assert report.extra["top5"] == pytest.approx(top_k_accuracy_score(truth, scores, k=5, labels=range(8)))
    correct = scores.argmax(axis=1) == truth
    assert report.per_sample == tuple(correct.astype(float))
    assert list(report.per_class) == list(LABELS)
    for number, label in enumerate(LABELS[:7]):
        assert report.per_class[label].value == pytest.approx(correct[truth == number].mean())
        assert report.per_class[label].samples == np.count_nonzero(truth == number)
    assert (report.per_class["class 7"].value, report.per_class["class 7"].samples) == (None, 0)
    data = report.to_dict()
    assert (data["metric"], data["samples"], data["value"]) == ("top1", 300, report.value)
    assert data["per_class"]["class 7"] == {"value": None, "samples": 0}
    assert "per_sample" not in data


def test_equal_scores_rank_by_index_and_nan_is_wrong() -> None:
    metric = get_task("classification").metric(SPEC)
    for label in range(8):
        metric.update(result(np.ones(8)), sample(label))
    report = metric.value()
    assert report.value == pytest.approx(1 / 8)
    assert report.extra["top5"] == pytest.approx(5 / 8)
    metric = get_task("classification").metric(SPEC)
    scores = np.ones(8)
    scores[3] = np.nan
    metric.update(result(scores), sample(3))
    assert (metric.value().value, metric.value().extra["top5"]) == (0.0, 0.0)


def test_what_cannot_be_scored_is_refused() -> None:
    metric = get_task("classification").metric(SPEC)
    with pytest.raises(DataError, match="no labelled image"):
        metric.value()
    with pytest.raises(DataError, match="has no label"):
        metric.update(result(np.ones(8)), sample(None))
    with pytest.raises(InternalError, match="expected 8 scores"):
        metric.update(
            ClassificationResult(index=0, label="a", score=1.0, scores=np.ones(3, np.float32), labels=("a", "b", "c")),
            sample(0),
        )


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown task 'clasification'") as caught:
        get_task("clasification")
    assert caught.value.hint == "did you mean 'classification'?"
