"""Kernels that TensorRT-RTX compiles, kept between sessions: on a pretended GPU, with a pretended library."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgekit.runtime.tensorrt.engines import kernel_cache
from tests.runtime.nvidia import Gpu, install
from tests.runtime.pretended_tensorrt import tensorrt
from tests.runtime.sessions.plans import BATCH, OTHER, images, network, opened, plan_of


def compiled() -> list[str]:
    """What the pretended library compiled since the last time."""
    found: list[str] = sys.modules["tensorrt_rtx"].compiled  # type: ignore[attr-defined]
    new, found[:] = list(found), []
    return new


def kept(folder: Path) -> Path:
    (found,) = (folder / "tensorrt" / "kernels").glob("*.learned")
    return found


def test_the_second_session_compiles_nothing(gpu: Gpu, tmp_path: Path) -> None:
    with opened(cache_dir=tmp_path) as session:
        assert session.describe()["kernels"] == "compiled here"
        session.infer({"image": images(1)})
    assert compiled() == ["engine", "batch 1"]
    with opened(cache_dir=tmp_path) as session:
        assert session.describe()["kernels"] == "from the cache"
        session.infer({"image": images(1)})
    assert compiled() == []
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600


def test_they_are_in_the_users_cache_folder_where_no_other_is_named(gpu: Gpu, tmp_path: Path) -> None:
    opened().close()
    assert kept(tmp_path / "cache" / "edgekit").exists()


def test_they_are_kept_after_the_first_inference_and_once_more_when_closing(gpu: Gpu, tmp_path: Path) -> None:
    session = opened(BATCH[:1], BATCH[1:], cache_dir=tmp_path)
    assert not (tmp_path / "tensorrt").exists()
    session.infer({"image": images(1)})
    first = kept(tmp_path).stat().st_ino
    session.collect(session.submit({"image": images(3)}))
    assert kept(tmp_path).stat().st_ino == first
    session.close()
    assert compiled() == ["engine", "batch 1", "batch 3"]
    with opened(BATCH[:1], BATCH[1:], cache_dir=tmp_path) as again:
        for count in (1, 3):
            again.infer({"image": images(count)})
        before = kept(tmp_path).stat().st_ino
    assert compiled() == []
    assert kept(tmp_path).stat().st_ino == before


def test_what_they_depend_on_has_another_name(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(cache_dir=tmp_path).close()
    compiled()
    opened((BATCH[0], OTHER), cache_dir=tmp_path, data=plan_of((BATCH[0], OTHER))).close()
    assert compiled() == ["engine"]
    install(monkeypatch, tensorrt(gpu, "tensorrt_rtx", network, version="1.8.0.1"))
    with opened(cache_dir=tmp_path) as session:
        assert session.describe()["kernels"] == "compiled here"
    assert compiled() == ["engine"]
    assert len(list(kept_all(tmp_path))) == 3


def kept_all(folder: Path) -> list[Path]:
    return list((folder / "tensorrt" / "kernels").glob("*.learned"))


@pytest.mark.parametrize("how", ["damaged", "readable", "foreign", "no cache"])
def test_what_is_not_usable_is_dropped_with_the_reason_and_replaced(gpu: Gpu, tmp_path: Path, how: str) -> None:
    opened(cache_dir=tmp_path).close()
    compiled()
    reason = _spoil(tmp_path, how)
    with opened(cache_dir=tmp_path) as session:
        session.infer({"image": images(1)})
        assert session.describe()["kernels"].startswith("compiled here, since what was kept is not usable: ")
        assert reason in session.describe()["kernels"]
    assert compiled() == ["engine", "batch 1"]
    with opened(cache_dir=tmp_path) as session:
        assert session.describe()["kernels"] == "from the cache"


def _spoil(folder: Path, how: str) -> str:
    path = kept(folder)
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
        return "not what was written"
    if how == "readable":
        path.chmod(0o644)
        return "nobody else"
    facts = json.loads(path.read_bytes().split(b"\n")[1])["facts"]
    content = json.dumps({"version": "1.7.1.116", "driver": "12.0", "kernels": ["engine"]}).encode()
    kernel_cache(folder).keep(facts, content if how == "foreign" else b"no cache")
    return "of another environment"


def test_a_folder_that_cannot_be_used_costs_only_time(gpu: Gpu, tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "kernels").mkdir()
    (tmp_path / "tensorrt" / "kernels").chmod(0o777)
    with opened(cache_dir=tmp_path) as session:
        session.infer({"image": images(1)})
        assert "not kept: " in session.describe()["kernels"]
        assert "others may write there" in session.describe()["kernels"]
    assert list((tmp_path / "tensorrt" / "kernels").iterdir()) == []
    assert gpu.live == {}


def test_tensorrt_compiles_none_when_it_opens_an_engine(gpu: Gpu, tmp_path: Path) -> None:
    with opened(kind="tensorrt-plan", cache_dir=tmp_path) as session:
        session.infer({"image": images(1)})
        assert "kernels" not in session.describe()
    assert list(tmp_path.glob("tensorrt")) == []
