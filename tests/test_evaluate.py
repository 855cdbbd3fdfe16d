"""Evaluation on a real engine, with known right and wrong images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.data import read_folder
from edgekit.errors import DataError, StageError
from edgekit.evaluate import evaluate
from edgekit.progress import ProgressTask
from edgekit.runtime import load
from tests.bench.tiny import LABELS, write_colored_images, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.edge")


def test_the_engine_is_scored_class_by_class(bundle: Path, tmp_path: Path) -> None:
    dataset = read_folder(write_colored_images(tmp_path / "data", count=4, wrong=1), LABELS)
    (tmp_path / "data" / "green" / "0.png").write_bytes(b"broken")
    with load(bundle) as model:
        assert model.spec is not None
        report = evaluate(model.session.infer, model.spec, dataset)
    assert report.samples == 11
    assert report.value == pytest.approx(10 / 11)
    assert {name: (score.value, score.samples) for name, score in report.per_class.items()} == {
        "blue": (0.75, 4),
        "green": (1.0, 3),
        "red": (1.0, 4),
    }
    assert report.per_sample == (0.0, *[1.0] * 10)
    assert len(report.skipped) == 1
    assert "green/0.png: cannot decode" in report.skipped[0]


def test_any_callable_of_the_same_signature_is_scored(bundle: Path, tmp_path: Path) -> None:
    dataset = read_folder(write_colored_images(tmp_path / "data", count=2), LABELS)
    counted: list[int] = []

    class Counting:
        def task(self, label: str, total: int | None) -> Counting:
            assert total == 6
            return self

        def __enter__(self) -> ProgressTask:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def advance(self, count: int = 1) -> None:
            counted.append(count)

        def note(self, text: str) -> None:
            pass

    with load(bundle) as model:
        assert model.spec is not None

        def program(feeds):  # type: ignore[no-untyped-def]
            assert feeds["image"].shape == (1, 16, 16, 3)
            assert feeds["image"].dtype == np.uint8
            return {"logits": -feeds["image"].mean(axis=(1, 2), dtype=np.float32)}

        report = evaluate(program, model.spec, dataset, progress=Counting())
    assert report.value == 0.0
    assert counted == [1] * 6


def test_what_cannot_be_scored_is_refused(bundle: Path, tmp_path: Path) -> None:
    labelled = read_folder(write_colored_images(tmp_path / "data"), LABELS)
    unlabelled = read_folder(tmp_path / "data" / "red", LABELS)
    with load(bundle) as model:
        assert model.spec is not None
        with pytest.raises(DataError, match="no labels"):
            evaluate(model.session.infer, model.spec, unlabelled)
        with pytest.raises(StageError, match=r"batch dimension of 1, got shape \(2, 3\)"):
            evaluate(lambda feeds: {"logits": np.zeros((2, 3))}, model.spec, labelled)
