"""What a library learned on this machine: kept where that is safe, dropped with a reason where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.runtime.tensorrt.learned import Found, LearnedCache

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"library": "TensorRT 10.3.0", "gpu": "Orin", "driver": "12.6"}


def cache(folder: Path, limit_bytes: int = 1000) -> LearnedCache:
    return LearnedCache(folder / "timings", limit_bytes=limit_bytes)


def entry(folder: Path) -> Path:
    (found,) = (folder / "timings").glob("*.learned")
    return found


def test_what_was_kept_is_found_on_the_same_machine_alone(tmp_path: Path) -> None:
    assert cache(tmp_path).find(FACTS) == Found()
    assert list(tmp_path.iterdir()) == []
    assert cache(tmp_path).keep(FACTS, b"learned") == ""
    assert cache(tmp_path).find(FACTS) == Found(data=b"learned")
    for key in FACTS:
        assert cache(tmp_path).find({**FACTS, key: "another"}) == Found()
    assert entry(tmp_path).stat().st_mode & 0o777 == 0o600
    assert entry(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def test_it_is_written_only_where_it_changed_or_is_damaged(tmp_path: Path) -> None:
    cache(tmp_path).keep(FACTS, b"learned")
    written = entry(tmp_path).stat().st_ino
    assert cache(tmp_path).keep(FACTS, b"learned") == ""
    assert entry(tmp_path).stat().st_ino == written
    entry(tmp_path).write_bytes(entry(tmp_path).read_bytes()[:-1])
    assert cache(tmp_path).keep(FACTS, b"learned") == ""
    assert cache(tmp_path).find(FACTS) == Found(data=b"learned")
    cache(tmp_path).keep(FACTS, b"learned more")
    assert cache(tmp_path).find(FACTS) == Found(data=b"learned more")


@pytest.mark.parametrize("where", [0, 40, -1])
def test_a_damaged_file_is_dropped_with_the_reason_and_replaced(tmp_path: Path, where: int) -> None:
    cache(tmp_path).keep(FACTS, b"learned")
    data = bytearray(entry(tmp_path).read_bytes())
    data[where] ^= 1
    entry(tmp_path).write_bytes(data)
    found = cache(tmp_path).find(FACTS)
    assert (found.data, bool(found.dropped)) == (b"", True)
    cache(tmp_path).keep(FACTS, b"anew")
    assert cache(tmp_path).find(FACTS) == Found(data=b"anew")


def test_what_others_may_touch_is_dropped(tmp_path: Path) -> None:
    cache(tmp_path).keep(FACTS, b"learned")
    entry(tmp_path).chmod(0o644)
    assert "nobody else" in cache(tmp_path).find(FACTS).dropped
    entry(tmp_path).chmod(0o600)
    entry(tmp_path).parent.chmod(0o777)
    assert "others may write there" in cache(tmp_path).find(FACTS).dropped
    assert "others may write there" in cache(tmp_path).keep(FACTS, b"more")
    entry(tmp_path).parent.chmod(0o700)
    link = entry(tmp_path)
    link.symlink_to(link.rename(tmp_path / "elsewhere"))
    assert cache(tmp_path).find(FACTS).dropped


def test_a_folder_that_cannot_be_made_is_a_reason_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(b"")
    assert cache(tmp_path).find(FACTS) == Found()
    assert "cannot keep" in cache(tmp_path).keep(FACTS, b"learned")


def test_the_folder_stays_within_its_bound(tmp_path: Path) -> None:
    bound = cache(tmp_path, limit_bytes=1500)
    for number in range(3):
        assert bound.keep({**FACTS, "driver": str(number)}, bytes(500)) == ""
        for path in (tmp_path / "timings").glob("*.learned"):
            os.utime(path, (path.stat().st_mtime - 10, path.stat().st_mtime - 10))
    kept = [bool(bound.find({**FACTS, "driver": str(number)}).data) for number in range(3)]
    assert kept == [False, True, True]
    assert "more than the 1,500 that are kept" in bound.keep({**FACTS, "driver": "2"}, bytes(1501))
    assert bound.find({**FACTS, "driver": "2"}) == Found()


KEEPS = """
import sys
from pathlib import Path
from edgekit.runtime.tensorrt.learned import LearnedCache
cache = LearnedCache(Path(sys.argv[1]) / "timings", limit_bytes=100_000)
for number in range(30):
    assert cache.keep({facts}, (sys.argv[2] * 10_000).encode()) == ""
    found = cache.find({facts})
    assert found.dropped == "" and len(set(found.data)) == 1 and len(found.data) == 10_000, found
"""


def test_processes_that_keep_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = KEEPS.replace("{facts}", repr(FACTS))
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in running:
        assert process.communicate(timeout=120)[1] == ""
    assert cache(tmp_path, 100_000).find(FACTS).data in (b"a" * 10_000, b"b" * 10_000)
    assert sorted(path.suffix for path in (tmp_path / "timings").iterdir()) == ["", ".learned"]
