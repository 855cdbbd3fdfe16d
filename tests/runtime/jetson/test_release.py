from __future__ import annotations

import pytest

from edgekit.runtime.jetson.jetpack import brought_by, jetpack_version
from edgekit.runtime.jetson.release import Release, parse_release
from tests.runtime.jetson.devices import recorded


@pytest.mark.parametrize(
    ("name", "release", "jetpack"),
    [
        ("orin-nano-r35", "35.3.1", "5.x"),
        ("orin-nano", "36.4.7", "6.2.1"),
        ("orin-nx", "36.4.7", "6.2.1"),
        ("agx-orin", "36.4.7", "6.2.1"),
        ("agx-orin-r39", "39.2.0", "7.2"),
        ("thor", "38.2.0", "7.0"),
        ("thor-r38.4", "38.4.0", "7.1"),
    ],
)
def test_the_release_of_real_devices(name: str, release: str, jetpack: str) -> None:
    found = parse_release(recorded(f"{name}.release"))
    assert found is not None
    assert str(found) == release
    assert jetpack_version(found) == jetpack


@pytest.mark.parametrize("text", ["", "Ubuntu 22.04", "# R36 (release)", "# Rxx (release), REVISION: 4.7", "\0\xff"])
def test_a_text_that_names_no_release_is_none(text: str) -> None:
    assert parse_release(text) is None


def test_what_a_jetpack_brings() -> None:
    lines = {
        revision: brought_by(Release(release=revision[0], revision=revision[1:]))
        for revision in [(36, 3, 0), (36, 4, 7), (36, 9), (38, 4, 0), (39, 2, 1)]
    }
    versions = {key: None if line is None else (line.tensorrt, line.cuda, line.python) for key, line in lines.items()}
    assert versions == {
        (36, 3, 0): ("8.6", "12.2", "3.10"),
        (36, 4, 7): ("10.3", "12.6", "3.10"),
        (36, 9): ("10.3", "12.6", "3.10"),
        (38, 4, 0): ("10.13", "13.0", "3.12"),
        (39, 2, 1): ("10.16", "13.2", "3.12"),
    }


@pytest.mark.parametrize("release", [32, 35, 37, 40])
def test_nothing_is_guessed_for_other_releases(release: int) -> None:
    assert brought_by(Release(release=release, revision=(1, 0))) is None
    assert jetpack_version(Release(release=37, revision=(1, 0))) is None
