from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekit.errors import ConfigError
from edgekit.runtime.tasks import get_runtime_task, load_spec, spec_from_dict, spec_to_dict, task_names
from edgekit.runtime.tasks.classification import ClassificationSpec

TOML = """
task = "classification"
labels = ["cat", "dog"]
activation = "sigmoid"

[input]
size = [32, 48]
color = "rgb"
resize = "crop"
crop_fraction = 0.9
scale = 0.00392156862745098
mean = [0.4, 0.5, 0.6]
std = [0.2, 0.2, 0.3]
antialias = true
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "task.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_spec_from_toml_survives_the_round_trip(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, TOML))
    assert isinstance(spec, ClassificationSpec)
    assert spec.labels == ("cat", "dog")
    assert spec.input.size == (32, 48)
    assert spec.input.mean == (0.4, 0.5, 0.6)
    assert spec_from_dict(spec_to_dict(spec), where="again") == spec


def test_labels_may_stand_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "pets.txt").write_text("cat\r\n große Dogge \r\n\r\n", encoding="utf-8")
    spec = load_spec(written(tmp_path, TOML.replace('["cat", "dog"]', '"names/pets.txt"')))
    assert isinstance(spec, ClassificationSpec)
    assert spec.labels == ("cat", "große Dogge")
    assert spec_to_dict(spec)["labels"] == ["cat", "große Dogge"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["cat", "dog"]', '"none.txt"', "labels: cannot read .*none.txt"),
        ('["cat", "dog"]', '["cat", "cat"]', "'cat' stands there more than once"),
        ('["cat", "dog"]', "[]", "labels: expected at least one"),
        ('labels = ["cat", "dog"]', "", "missing key 'labels'"),
        ("size =", "sise =", "unknown key 'input.sise'(.|\n)*did you mean 'size'"),
        ('"sigmoid"', '"sigmod"', "activation: expected one of(.|\n)*did you mean 'sigmoid'"),
        ('"classification"', '"clasification"', "task.toml: unknown task(.|\n)*did you mean 'classification'"),
        ('task = "classification"', "", "task: expected one of classification, got nothing"),
        ("[0.4, 0.5, 0.6]", "[0.4]", "input: mean: expected 3 values"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TOML
    with pytest.raises(ConfigError) as caught:
        load_spec(written(tmp_path, TOML.replace(old, new)))
    assert re.search(words, str(caught.value)), str(caught.value)


def test_a_hole_in_the_label_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("cat\n\ndog\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 is empty"):
        load_spec(written(tmp_path, TOML.replace('["cat", "dog"]', '"l.txt"')))


def test_every_task_of_the_table_is_found_by_its_name() -> None:
    assert task_names()
    for name in task_names():
        assert get_runtime_task(name).name == name
