"""What is done around the engine overlaps with its work, in every session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.data import read_folder
from edgekit.evaluate import evaluate, evaluate_session
from edgekit.runtime import Model, load
from edgekit.runtime.pipeline import pipelined
from edgekit.runtime.session import Session
from tests.bench.tiny import LABELS, write_colored_images, write_tiny_bundle
from tests.runtime.engines import SIZE, solid, write_color_bundle


class Watched:
    """A session that counts what it works on."""

    def __init__(self, session: Session) -> None:
        self.inputs, self.outputs, self.in_flight = session.inputs, session.outputs, session.in_flight
        self.under_way = 0
        self._session = session

    def submit(self, feeds: Mapping[str, np.ndarray]) -> Any:
        self.under_way += 1
        assert self.under_way <= self.in_flight
        return self._session.submit(feeds)

    def collect(self, ticket: Any) -> dict[str, np.ndarray]:
        self.under_way -= 1
        return self._session.collect(ticket)

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise AssertionError("nothing can overlap with this call")


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with load(write_color_bundle(tmp_path / "colors.edge")) as opened:
        yield opened


def test_outputs_come_in_order_with_their_keys(model: Model) -> None:
    frames = [np.full((1, SIZE, SIZE, 3), value, np.uint8) for value in range(20)]
    feeds = ((number, {"image": frame}) for number, frame in enumerate(frames))
    for number, (key, outputs) in enumerate(pipelined(model.session, feeds)):
        assert key == number
        np.testing.assert_array_equal(outputs["logits"], model.infer({"image": frames[number]})["logits"])
    assert list(pipelined(model.session, [])) == []


def test_frames_are_prepared_and_results_decoded_while_the_engine_works(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(model.session)
    watching = Model(bundle=model.bundle, entry=model.entry, session=watched)  # type: ignore[arg-type]
    seen: dict[str, list[int]] = {"prepare": [], "decode": []}
    for name, counts in seen.items():
        real = getattr(watching, name)

        def spied(*arguments: Any, real: Any = real, counts: list[int] = counts) -> Any:
            counts.append(watched.under_way)
            return real(*arguments)

        monkeypatch.setattr(watching, name, spied)
    results = list(watching.stream(solid("red") for _ in range(10)))
    full = watched.in_flight
    assert len(results) == 10
    assert full >= 2
    assert seen["prepare"] == [*range(full), *[full] * (10 - full)]
    assert seen["decode"] == [*[full] * (10 - full), *reversed(range(full))]


def test_an_evaluation_overlaps_too_and_scores_the_same(tmp_path: Path) -> None:
    dataset = read_folder(write_colored_images(tmp_path / "data", count=4, wrong=1), LABELS)
    (tmp_path / "data" / "green" / "0.png").write_bytes(b"broken")
    with load(write_tiny_bundle(tmp_path / "tiny.edge")) as model:
        assert model.spec is not None
        one_by_one = evaluate(model.session.infer, model.spec, dataset)
        watched: Any = Watched(model.session)
        assert evaluate_session(watched, model.spec, dataset) == one_by_one
    assert one_by_one.samples == 11
    assert watched.under_way == 0
