"""The cache of built engines, with real processes where it is about them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.errors import StageError, UserError
from edgekit.runtime.tensorrt.cache import EngineCache, Obtained

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"graph": "abc", "library": "TensorRT 10.3.0", "gpu": "Orin", "driver": "12.6"}

# Builds slowly, and notes each build as a line.
PROCESS = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from edgekit.runtime.tensorrt.cache import EngineCache
folder = Path(sys.argv[1])
def build():
    with (folder / "builds.txt").open("a") as stream:
        stream.write("build\\n")
    time.sleep(float(sys.argv[2]))
    return b"engine"
@contextmanager
def waiting():
    print("waits", flush=True)
    yield
found = EngineCache(folder / "cache").obtain({facts}, build, waiting=waiting)
print(found.data.decode(), found.why_built, flush=True)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = PROCESS.replace("{facts}", repr(FACTS))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def builds(folder: Path) -> int:
    path = folder / "builds.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def until_building(folder: Path) -> None:
    limit = time.monotonic() + 60
    while builds(folder) == 0:
        assert time.monotonic() < limit
        time.sleep(0.02)


def entry(folder: Path) -> Path:
    (found,) = folder.glob("*.engine")
    return found


def engine(cache: EngineCache, data: bytes = b"engine", facts: dict[str, str] = FACTS) -> Obtained:
    return cache.obtain(facts, lambda: data)


def never() -> bytes:
    raise AssertionError("built though it was there")


def test_it_is_built_once(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    assert engine(cache) == Obtained(data=b"engine", why_built="it was not built here before")
    assert EngineCache(tmp_path / "cache").obtain(FACTS, never) == Obtained(data=b"engine")


def test_two_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    first = start(tmp_path, 1.5)
    until_building(tmp_path)
    second = start(tmp_path, 1.5)
    assert first.communicate(timeout=60)[0].split("\n")[0] == "engine it was not built here before"
    assert second.communicate(timeout=60)[0].split() == ["waits", "engine"]
    assert builds(tmp_path) == 1


def test_a_builder_that_is_killed_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    first = start(tmp_path, 600)
    until_building(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert list((tmp_path / "cache").glob("*.engine")) == []
    assert start(tmp_path, 0).communicate(timeout=60)[0].split("\n")[0] == "engine it was not built here before"
    assert builds(tmp_path) == 2


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    left = tmp_path / ".edgekit-0123456789abcdef.tmp"
    left.write_bytes(b"half an engine")
    engine(cache)
    assert not left.exists()


def test_a_build_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def refuses() -> bytes:
        raise StageError("no such operator")

    cache = EngineCache(tmp_path)
    with pytest.raises(StageError, match="no such operator"):
        cache.obtain(FACTS, refuses)
    assert list(tmp_path.glob("*.engine")) == []
    assert engine(cache).why_built == "it was not built here before"


@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_damaged_entry_is_built_anew(tmp_path: Path, where: int) -> None:
    cache = EngineCache(tmp_path)
    engine(cache)
    data = bytearray(entry(tmp_path).read_bytes())
    data[where] ^= 1
    entry(tmp_path).write_bytes(data)
    again = engine(cache, b"anew")
    assert again.data == b"anew"
    assert "not usable" in again.why_built or "of another engine" in again.why_built
    assert cache.obtain(FACTS, never).data == b"anew"


@pytest.mark.parametrize("cut", [0, 10, 60, 200])
def test_a_cut_entry_is_built_anew(tmp_path: Path, cut: int) -> None:
    cache = EngineCache(tmp_path)
    engine(cache)
    entry(tmp_path).write_bytes(entry(tmp_path).read_bytes()[:cut])
    assert "not usable" in engine(cache).why_built


def test_an_entry_that_others_may_touch_is_not_used(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    engine(cache)
    assert entry(tmp_path).stat().st_mode & 0o777 == 0o600
    entry(tmp_path).chmod(0o660)
    assert "nobody else" in engine(cache).why_built
    link = entry(tmp_path)
    moved = link.rename(tmp_path / "elsewhere")
    link.symlink_to(moved)
    assert "not usable" in engine(cache).why_built


def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="others may write there") as caught:
        EngineCache(folder)
    assert "chmod 700" in str(caught.value.hint)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot keep engines there"):
        EngineCache(tmp_path / "file" / "cache")


def test_a_new_folder_is_the_owners_alone(tmp_path: Path) -> None:
    EngineCache(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_an_upgrade_builds_anew_and_says_what_changed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    engine(cache)
    newer = engine(cache, b"newer", {**FACTS, "library": "TensorRT 10.7.0"})
    assert newer == Obtained(data=b"newer", why_built="library was TensorRT 10.3.0, is TensorRT 10.7.0")
    assert cache.obtain(FACTS, never).data == b"engine"
    assert engine(cache, facts={**FACTS, "graph": "def"}).why_built == "it was not built here before"


def test_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=3500)
    for number in range(4):
        facts = {**FACTS, "graph": str(number)}
        engine(cache, bytes(800), facts)
        for path in tmp_path.glob("*.engine"):
            os.utime(path, (path.stat().st_mtime - 10, path.stat().st_mtime - 10))
        if number == 1:
            cache.obtain({**FACTS, "graph": "0"}, never)  # used, so it stays longer than the one built after it
    kept = [number for number in range(4) if _is_there(cache, {**FACTS, "graph": str(number)})]
    assert kept == [0, 2, 3]
    huge = engine(cache, bytes(5000), {**FACTS, "graph": "huge"})
    assert len(huge.data) == 5000
    assert cache.obtain({**FACTS, "graph": "huge"}, never).data == huge.data


def _is_there(cache: EngineCache, facts: dict[str, str]) -> bool:
    try:
        cache.obtain(facts, never)
    except AssertionError:
        return False
    return True
