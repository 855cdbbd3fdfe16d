from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.calibration import Recipe, list_recipes, load_recipe
from edgekit.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_CALIBRATION", raising=False)


def _mine(folder: Path, text: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\ntitle = "Mine"\nmethod = "minmax"\n{text}')
    return path


def test_the_shipped_recipes() -> None:
    assert [recipe.name for recipe in list_recipes()] == ["accurate", "default", "fast"]


def test_the_default_recipe_states_the_defaults() -> None:
    default = load_recipe("default")
    assert default == Recipe(name="default", title=default.title, method="mse")
    assert default.samples == 300
    assert default.sampling == "stratified"


def test_the_recipes_differ_as_their_names_say() -> None:
    fast, default, accurate = (load_recipe(name) for name in ("fast", "default", "accurate"))
    assert fast.method == "minmax"
    assert not fast.bias_correction
    assert fast.samples < default.samples < accurate.samples
    assert default.bias_samples < accurate.bias_samples


def test_a_recipe_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _mine(tmp_path, "samples = 7\n")
    assert load_recipe(path).samples == 7
    monkeypatch.setenv("EDGEKIT_CALIBRATION", str(tmp_path))
    assert load_recipe("mine") == load_recipe(path)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'defualt'") as caught:
        load_recipe("defualt")
    assert caught.value.hint == "did you mean 'default'?"


def test_an_unknown_key_names_file_and_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown key 'sample'") as caught:
        load_recipe(_mine(tmp_path, "sample = 7\n"))
    assert caught.value.hint == "did you mean 'samples'?"


@pytest.mark.parametrize("key", ["samples", "bias_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_positive(key: str, value: int) -> None:
    values: dict[str, Any] = {key: value}
    with pytest.raises(ConfigError, match=f"{key}: expected at least 1, got {value}"):
        Recipe(name="x", title="x", method="mse", **values)
