"""The choice of images: stratified, seeded, independent of order and place, and disjoint by content."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import Dataset, Sample, calibration_warnings, choose, split, stratified_sample
from edgekit.errors import DataError


def make_dataset(sizes: list[int], root: str = "/data") -> Dataset:
    samples = tuple(
        Sample(path=Path(root) / f"c{label}" / f"{number:04}.png", label=label)
        for label, size in enumerate(sizes)
        for number in range(size)
    )
    return Dataset(samples=samples, classes=tuple(f"c{label}" for label in range(len(sizes))))


def names(dataset: Dataset) -> list[str]:
    return ["/".join(sample.path.parts[-2:]) for sample in dataset.samples]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    count=st.integers(1, 120),
    seed=st.integers(0, 5),
)
def test_stratified_shares_follow_the_classes(sizes: list[int], count: int, seed: int) -> None:
    dataset = make_dataset(sizes)
    chosen = stratified_sample(dataset, count, seed)
    assert len(chosen) == min(count, len(dataset))
    assert len(set(names(chosen))) == len(chosen)
    counts = Counter(sample.label for sample in chosen.samples)
    if count >= len(sizes):
        assert len(counts) == len(sizes)
    else:
        assert max(counts.values()) == 1
    larger = stratified_sample(dataset, count + 7, seed)
    assert names(larger)[: len(chosen)] == names(chosen)


def test_proportions_are_exact_where_they_can_be() -> None:
    counts = Counter(sample.label for sample in stratified_sample(make_dataset([200, 100, 50]), 70, 3).samples)
    assert counts == {0: 40, 1: 20, 2: 10}


@pytest.mark.parametrize("sampling", ["stratified", "random", "first"])
def test_the_choice_depends_on_seed_and_names_alone(sampling: str) -> None:
    here, there = make_dataset([30, 20]), make_dataset([30, 20], root="/somewhere/else")
    shuffled = list(there.samples)
    random.Random(1).shuffle(shuffled)
    a = choose(here, 10, sampling=sampling, seed=5)  # type: ignore[arg-type]
    b = choose(replace(there, samples=tuple(shuffled)), 10, sampling=sampling, seed=5)  # type: ignore[arg-type]
    assert names(a) == names(b)
    other = choose(here, 10, sampling=sampling, seed=6)  # type: ignore[arg-type]
    assert (names(other) == names(a)) == (sampling == "first")


def test_the_choice_never_changes_between_versions() -> None:
    assert names(stratified_sample(make_dataset([5, 5]), 4, 0)) == [
        "c0/0003.png",
        "c1/0002.png",
        "c1/0000.png",
        "c0/0002.png",
    ]


def write_files(root: Path, contents: dict[str, str]) -> Dataset:
    samples = []
    for name, content in sorted(contents.items()):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        samples.append(Sample(path=path, label=int(name[1])))
    return Dataset(samples=tuple(samples), classes=("c0", "c1"))


def test_split_is_disjoint_and_complete(tmp_path: Path) -> None:
    dataset = write_files(tmp_path, {f"c{number % 2}/{number:03}.png": f"{number:05}" for number in range(100)})
    calibration, evaluation = split(dataset, calibration=40, sampling="stratified", seed=0, max_eval=None)
    assert len(calibration) == 40
    assert set(names(calibration)) | set(names(evaluation)) == set(names(dataset))
    assert not set(names(calibration)) & set(names(evaluation))
    assert Counter(sample.label for sample in calibration.samples) == {0: 20, 1: 20}
    _, few = split(dataset, calibration=40, sampling="stratified", seed=0, max_eval=10)
    assert Counter(sample.label for sample in few.samples) == {0: 5, 1: 5}
    assert set(names(few)) <= set(names(evaluation))


def test_a_copy_of_a_calibration_image_is_no_evaluation_image(tmp_path: Path) -> None:
    # Every image is there three times, under other names: without the content check a copy would always leak.
    contents = {f"c{number % 2}/{copy}{number:03}.png": f"{number:05}" for number in range(40) for copy in "abc"}
    dataset = write_files(tmp_path, contents)
    calibration, evaluation = split(dataset, calibration=32, sampling="random", seed=0, max_eval=None)
    calibrated = {sample.path.read_text() for sample in calibration.samples}
    evaluated = {sample.path.read_text() for sample in evaluation.samples}
    assert evaluated
    assert not calibrated & evaluated
    dropped = len(dataset) - len(calibration) - len(evaluation)
    assert dropped > 0
    assert any(f"{dropped} images were left out" in note for note in evaluation.notes)


def test_a_small_labelled_set_keeps_half_for_evaluation_and_says_so(tmp_path: Path) -> None:
    dataset = write_files(tmp_path, {f"c{number % 2}/{number:03}.png": f"{number:05}" for number in range(100)})
    calibration, evaluation = split(dataset, calibration=300, sampling="stratified", seed=0, max_eval=None)
    assert (len(calibration), len(evaluation)) == (50, 50)
    assert "instead of 300" in calibration.notes[0]
    tiny = replace(dataset, samples=dataset.samples[:20])
    calibration, evaluation = split(tiny, calibration=300, sampling="stratified", seed=0, max_eval=None)
    assert (len(calibration), len(evaluation)) == (20, 0)
    assert "no image is left for evaluation" in calibration.notes


def test_an_unlabelled_set_gives_calibration_what_it_asks_for(tmp_path: Path) -> None:
    labelled = write_files(tmp_path, {f"c0/{number:03}.png": f"{number:05}" for number in range(60)})
    samples = tuple(replace(sample, label=None) for sample in labelled.samples)
    calibration, evaluation = split(
        Dataset(samples=samples, classes=None), calibration=50, sampling="stratified", seed=0, max_eval=None
    )
    assert (len(calibration), len(evaluation)) == (50, 10)


def test_warnings_name_what_is_doubtful() -> None:
    assert calibration_warnings(make_dataset([20, 20]), ("c0", "c1")) == ()
    few = calibration_warnings(make_dataset([10, 21, 0]), ("c0", "c1", "c2"))
    assert len(few) == 2
    assert "only 31 calibration images" in few[0]
    assert "1 of 3 classes have no calibration image: c2" in few[1]


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        stratified_sample(make_dataset([3]), 0, 0)
    with pytest.raises(DataError, match="empty"):
        split(Dataset(samples=(), classes=None), calibration=3, sampling="random", seed=0, max_eval=None)
    with pytest.raises(DataError, match="label 4 is not one of 1 classes"):
        Dataset(samples=(Sample(path=Path("a"), label=4),), classes=("x",))
    with pytest.raises(DataError, match="has no label"):
        Dataset(samples=(Sample(path=Path("a"), label=None),), classes=("x",))
