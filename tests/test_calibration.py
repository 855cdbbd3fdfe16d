from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.calibration import Corrections, Ranges, Recipe, list_recipes, load_recipe
from edgekit.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_CALIBRATION", raising=False)


def _mine(folder: Path, text: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\ntitle = "Mine"\n{text}')
    return path


def test_the_shipped_recipes() -> None:
    names = ["accurate", "default", "detector", "fast", "transformer"]
    assert [recipe.name for recipe in list_recipes()] == names


def test_the_default_recipe_states_the_defaults() -> None:
    default = load_recipe("default")
    assert default == Recipe(name="default", title=default.title)
    assert default.samples == 300
    assert default.sampling == "stratified"


def test_the_recipes_differ_as_their_names_say() -> None:
    fast, default, accurate = (load_recipe(name) for name in ("fast", "default", "accurate"))
    assert fast.ranges.method == "minmax"
    assert fast.corrections.bias == "off"
    assert fast.samples < default.samples < accurate.samples
    assert (default.corrections.bias, accurate.corrections.bias) == ("once", "sequential")
    assert (default.corrections.rounding, accurate.corrections.rounding) == ("nearest", "adaptive")
    assert accurate.ranges.method == "search"
    assert load_recipe("transformer").corrections.smooth


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


@pytest.mark.parametrize("kind", [Recipe, Ranges, Corrections])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_positive(kind: type, value: int) -> None:
    names = {Recipe: ("samples", "batch_size"), Ranges: ("search_samples",), Corrections: ("samples", "held_out")}
    base: dict[str, Any] = {"name": "x", "title": "x"} if kind is Recipe else {}
    for key in names[kind]:
        with pytest.raises(ConfigError, match=f"{key}: expected at least 1, got {value}"):
            kind(**base, **{key: value})


@pytest.mark.parametrize("share", [50, 0.9999, 100.5])
def test_a_percentile_is_in_percent(share: float) -> None:
    with pytest.raises(ConfigError, match="percentile: expected a number above 50 and up to 100"):
        Ranges(percentile=share)


def test_an_unknown_method_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mince") as caught:
        load_recipe(_mine(tmp_path, '[ranges]\nmethod = "mince"\n'))
    assert caught.value.hint is not None
    assert "mse" in f"{caught.value.message} {caught.value.hint}"
