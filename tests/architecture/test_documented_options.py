from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from edgekit.calibration import Corrections, Ranges, Recipe
from edgekit.targets import Portable, QuantizeRules, Requires, Target

ROOT = Path(__file__).resolve().parents[2]


def _explained(path: Path) -> set[str]:
    """Returns the keys and tables that have a comment: on their own line, or on the lines just above."""
    found, above = set(), False
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(\w+)\s*=|\[+([\w.]+)\]+", line)
        if match is not None and (above or "#" in line):
            found.add(match[1] if match[1] is not None else match[2])
        above = line.startswith("#") or (above and match is not None and line.startswith("["))
    return found


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("cls", [Recipe, Ranges, Corrections])
def test_every_key_of_a_recipe_is_explained(cls: type) -> None:
    missing = _fields(cls) - _explained(ROOT / "calibration" / "default.toml") - {"title"}
    assert missing == set()


@pytest.mark.parametrize("path", sorted((ROOT / "calibration").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_states_every_key(path: Path) -> None:
    stated = {match[1] for match in re.finditer(r"^\[?(\w+)(?: =|\])", path.read_text(), flags=re.MULTILINE)}
    assert stated == _fields(Recipe) | _fields(Ranges) | _fields(Corrections)


@pytest.mark.parametrize("cls", [QuantizeRules, Requires])
def test_every_option_of_a_target_s_tables_is_explained(cls: type) -> None:
    missing = _fields(cls) - _explained(ROOT / "targets" / "x86-cpu.toml") - {"reason"}
    assert missing == set()


def test_every_key_of_a_target_is_used_and_explained_somewhere() -> None:
    explained: set[str] = set()
    text = ""
    for path in sorted((ROOT / "targets").glob("*.toml")):
        explained |= _explained(path)
        text += path.read_text(encoding="utf-8")
    assert {"quantize", "requires", "portable", "golden_rel_l2", "engine", "peaks"} <= explained
    for name in _fields(Target) | _fields(Portable):
        assert re.search(rf"^(\[+)?{name}\b", text, flags=re.MULTILINE), f"no target shows '{name}'"
