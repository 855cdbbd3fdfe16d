"""The folder reader: layouts, labels, and everything that can be wrong with a folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data import read_folder
from edgekit.errors import DataError


def write_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(path.suffix, np.full((4, 4, 3), value, np.uint8))[1]
    encoded.tofile(path)
    return path


def test_class_folders_follow_the_order_of_the_labels(tmp_path: Path) -> None:
    for name in ("cat", "ant", "bee"):
        write_image(tmp_path / name / "1.png")
    dataset = read_folder(tmp_path, ("bee", "cat", "ant"))
    assert dataset.classes == ("bee", "cat", "ant")
    assert {sample.path.parent.name: sample.label for sample in dataset.samples} == {"bee": 0, "cat": 1, "ant": 2}


def test_without_labels_classes_are_the_sorted_folder_names(tmp_path: Path) -> None:
    for name in ("zoo", "ant"):
        write_image(tmp_path / name / "1.png")
    assert read_folder(tmp_path, None).classes == ("ant", "zoo")


def test_a_flat_folder_is_unlabelled_even_when_the_task_has_labels(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        write_image(tmp_path / name)
    dataset = read_folder(tmp_path, ("x", "y"))
    assert dataset.classes is None
    assert not dataset.labelled
    assert [sample.path.name for sample in dataset.samples] == ["a.jpg", "b.png"]
    assert [sample.label for sample in dataset.samples] == [None, None]


def test_hidden_names_are_skipped_and_other_files_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "1.PNG".lower())
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "1.PNG")
    write_image(tmp_path / "a" / ".2.png")
    write_image(tmp_path / ".cache" / "3.png")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    dataset = read_folder(tmp_path, None)
    assert [sample.path.name for sample in dataset.samples] == ["1.PNG"]
    assert dataset.classes == ("a",)
    assert dataset.ignored == 2


def test_an_unknown_class_folder_names_both_sides(tmp_path: Path) -> None:
    for name in ("cat", "dgo"):
        write_image(tmp_path / name / "1.png")
    with pytest.raises(DataError, match=r"not among the task's 2 labels: dgo; labels without a folder: dog") as caught:
        read_folder(tmp_path, ("cat", "dog"))
    assert caught.value.hint is not None
    assert "'dog'" in caught.value.hint


def test_a_label_without_images_is_noted(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    dataset = read_folder(tmp_path, ("cat", "dog", "eel"))
    assert dataset.classes == ("cat", "dog", "eel")
    assert len(dataset.notes) == 1
    assert "2 of 3 classes have no image" in dataset.notes[0]
    assert "eel, dog" in dataset.notes[0]


def test_accents_match_whether_composed_or_not(tmp_path: Path) -> None:
    write_image(tmp_path / unicodedata.normalize("NFD", "café") / "1.png")
    dataset = read_folder(tmp_path, (unicodedata.normalize("NFC", "café"),))
    assert [sample.label for sample in dataset.samples] == [0]


def test_a_link_to_nowhere_stays_a_sample_so_that_reading_reports_it(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    assert [sample.path.name for sample in read_folder(tmp_path, None).samples] == ["1.png", "2.png"]


def make_nothing(root: Path) -> None:
    pass


def make_only_text(root: Path) -> None:
    (root / "readme.txt").write_text("x")


def make_empty_classes(root: Path) -> None:
    (root / "a").mkdir()
    (root / "b").mkdir()


def make_both(root: Path) -> None:
    write_image(root / "1.png")
    write_image(root / "a" / "1.png")


def make_nested(root: Path) -> None:
    write_image(root / "train" / "cat" / "1.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "no images found"),
        (make_only_text, r"1 other files were ignored \(readme.txt\)"),
        (make_empty_classes, r"no images in its 2 class folders \(a, b\)"),
        (make_both, "holds 1 images .* beside 1 folders"),
        (make_nested, "class folder holds folders"),
    ],
)
def test_unusable_layouts_say_what_was_expected(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(tmp_path, None)
    assert caught.value.hint is not None
    assert str(tmp_path) in caught.value.message


def test_a_missing_path_and_a_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "gone", None)
    with pytest.raises(DataError, match="is a file, expected a folder"):
        read_folder(write_image(tmp_path / "1.png"), None)
