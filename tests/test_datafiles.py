from __future__ import annotations

from pathlib import Path

import pytest

from edgekit import datafiles
from edgekit.calibration import Recipe
from edgekit.errors import ConfigError, InternalError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("jetson", False), ("jetson.v2", False), ("a.toml", True), ("boards/a", True), (Path("jetson"), True)],
)
def test_what_is_a_path(name: str | Path, expected: bool) -> None:
    assert datafiles.is_path(name) is expected


def test_the_source_tree_is_found() -> None:
    assert datafiles.builtin_folder("targets") == ROOT / "targets"


def test_an_installed_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "edgekit" / "_data" / "targets"
    installed.mkdir(parents=True)
    monkeypatch.setattr(datafiles, "__file__", str(tmp_path / "edgekit" / "datafiles.py"))
    assert datafiles.builtin_folder("targets") == installed


def test_a_stray_folder_beside_the_package_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "edgekit").mkdir()
    monkeypatch.setattr(datafiles, "__file__", str(tmp_path / "edgekit" / "datafiles.py"))
    with pytest.raises(InternalError, match="no targets folder"):
        datafiles.builtin_folder("targets")


def test_files_that_are_not_toml_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEKIT_CALIBRATION", raising=False)
    (tmp_path / "README.md").write_text("notes")
    before = datafiles.read_all(Recipe, "calibration", variable="EDGEKIT_CALIBRATION")
    assert datafiles.read_all(Recipe, "calibration", variable="EDGEKIT_CALIBRATION", extra=tmp_path) == before


def test_one_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = 3\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: name: expected str"):
        datafiles.read_all(Recipe, "calibration", variable="EDGEKIT_CALIBRATION", extra=tmp_path)
