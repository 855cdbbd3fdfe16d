"""Augmentations as data: strict, named, with the shipped ones as they say they are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from edgekit.augmentation import Augmentation, list_augmentations, load_augmentation
from edgekit.datafiles import builtin_folder
from edgekit.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_AUGMENTATION", raising=False)


def test_the_shipped_ones() -> None:
    assert [item.name for item in list_augmentations()] == ["cifar", "light", "none", "photo"]
    assert load_augmentation("none").off
    assert not any(load_augmentation(name).off for name in ("cifar", "light", "photo"))
    cifar = load_augmentation("cifar")
    assert (cifar.crop_padding, cifar.flip_horizontal, cifar.needs_full_scale) == (4, 0.5, False)
    # Digits and signs may be trained with the light one.
    assert load_augmentation("light").flip_horizontal == 0


def test_photo_states_and_explains_every_key() -> None:
    explained, above = set(), False
    for line in (builtin_folder("augmentation") / "photo.toml").read_text(encoding="utf-8").splitlines():
        match = re.match(r"(\w+) =", line)
        if match is not None and above:
            explained.add(match[1])
        above = line.startswith("#") or (above and match is not None)
    keys = {item.name for item in dataclasses.fields(Augmentation)}
    assert keys - explained == {"name", "title"} - explained


def test_one_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "Mine"\nrotation_deg = 5\n')
    assert load_augmentation(path).rotation_deg == 5.0
    monkeypatch.setenv("EDGEKIT_AUGMENTATION", str(tmp_path))
    assert load_augmentation("mine") == load_augmentation(path)
    path.write_text('name = "mine"\ntitle = "Mine"\nrotation = 5\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown key 'rotation'") as caught:
        load_augmentation(path)
    assert caught.value.hint == "did you mean 'rotation_deg'?"


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown augmentation 'cifr'") as caught:
        load_augmentation("cifr")
    assert caught.value.hint == "did you mean 'cifar'?"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip_horizontal": 1.5}, "flip_horizontal: expected a number from 0 to 1, got 1.5"),
        ({"gamma": 0.95}, "gamma: expected a number from 0 to 0.9"),
        ({"noise_std": -0.1}, "noise_std: expected 0 or more"),
        ({"scale": (1.2, 0.8)}, r"scale: expected \[smallest, largest\] above 0"),
        ({"crop_area": (0.5, 1.5)}, "crop_area: expected a share of up to 1"),
        ({"crop_area": (0.5, 1.0), "crop_padding": 4}, "two ways to crop"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(name="x", title="x", **wrong)
