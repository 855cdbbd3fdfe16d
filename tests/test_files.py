"""Files and folders that appear whole or not at all: interrupts, full disks, permissions, links."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import UserError
from edgekit.files import atomic_folder, atomic_write

ROOT = Path(__file__).resolve().parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(path: Path, data: bytes) -> None:
    with atomic_write(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write(path, b"one")
    write(path, b"two")
    assert contents(tmp_path) == {"a.bin": b"two"}


def test_until_the_end_the_old_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write(path, b"old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError, FileNotFoundError])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_exception_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)

    def interrupted() -> None:
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert contents(tmp_path) == ({} if old is None else {"a.bin": old})


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with umask(mask):
        write(tmp_path / "a.bin", b"x")
        with atomic_folder(tmp_path / "folder"):
            pass
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == mode | (mode & 0o444) >> 2


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.bin").symlink_to(tmp_path / "real" / "a.bin")
    write(tmp_path / "link.bin", b"x")
    assert (tmp_path / "link.bin").is_symlink()
    assert contents(tmp_path / "real") == {"a.bin": b"x"}


def test_a_long_name_is_fine(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 255), b"x")
    assert contents(tmp_path) == {"n" * 255: b"x"}


def test_a_name_that_is_too_long_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        write(tmp_path / ("n" * 256), b"x")
    assert contents(tmp_path) == {}


def test_a_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder") as caught, atomic_write(tmp_path / "no" / "a.bin"):
        pytest.fail("the block must not run")
    assert "make the folder first" in str(caught.value.hint)
    with pytest.raises(UserError, match="there is no folder"), atomic_folder(tmp_path / "no" / "out"):
        pytest.fail("the block must not run")


def test_something_else_than_a_file_is_a_user_error(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UserError, match="is not a file"), atomic_write(path):
            pytest.fail("the block must not run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write(tmp_path / "a.bin", b"x")


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FULL = """
import sys
from pathlib import Path
from edgekit.errors import UserError
from edgekit.files import atomic_folder, atomic_write
{before}
for size in (3 << 20, 300_000):  # fails in a write, and in the flush at the end
    try:
        with atomic_write(Path("a.bin"), size_bytes=size) as stream:
            stream.write(bytes(size))
    except UserError as error:
        print(error)
try:
    with atomic_folder(Path("out")) as folder:
        (folder / "a.bin").write_bytes(bytes(3 << 20))
except UserError as error:
    print(error)
"""


def test_a_file_that_grows_too_large_is_a_user_error(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no resource limits")
    write(tmp_path / "a.bin", b"old")
    text = run(
        FULL.format(before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"), tmp_path
    )
    assert text.count("a.bin: cannot write: File too large: 3,145,728 bytes are needed, ") == 1
    assert text.count("a.bin: cannot write: File too large: 300,000 bytes are needed, ") == 1
    assert text.count("out: cannot write: File too large: ") == 1
    assert text.count("free some space there, or write to another disk; nothing was changed") == 3
    assert contents(tmp_path) == {"a.bin": b"old"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("this system has no mount command")
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_a_user_error_that_says_how_much_was_needed(small_disk: Path) -> None:
    write(small_disk / "a.bin", b"old")
    text = run(FULL.format(before=""), small_disk)
    free = 256 * 1024 - 4096
    needed = "a.bin: cannot write: No space left on device: {:,} bytes are needed, {:,} bytes are free in {}"
    assert needed.format(3 << 20, free, small_disk) in text
    assert needed.format(300_000, free, small_disk) in text
    assert f"out: cannot write: No space left on device: {free:,} bytes are free" in text
    assert contents(small_disk) == {"a.bin": b"old"}


SLOW = """
import sys
from pathlib import Path
from edgekit.files import atomic_folder, atomic_write
if sys.argv[1] == "file":
    with atomic_write(Path("a.bin")) as stream:
        stream.write(bytes(5 << 20))
        print("ready", flush=True)
        while True:
            stream.write(bytes(1000))
else:
    with atomic_folder(Path("out"), replace=True) as folder:
        (folder / "new").write_bytes(b"new")
        print("ready", flush=True)
        while True:
            pass
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_ctrl_c_leaves_everything_as_it_was(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_bytes(b"old")
    (tmp_path / "a.bin").write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert sorted(path.name for path in tmp_path.iterdir())[0].startswith(".edgekit-")
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert "KeyboardInterrupt" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "out"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert contents(tmp_path / "out") == {"old": b"old"}


def test_a_folder_appears_with_all_it_holds(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/sub/a").read_bytes() == b"a"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_holds_something_is_kept_unless_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with atomic_folder(out) as folder:
        (folder / "first").touch()
    with pytest.raises(UserError, match="is not empty"), atomic_folder(out):
        pytest.fail("the block must not run")
    with pytest.raises(ZeroDivisionError), atomic_folder(out, replace=True) as folder:
        (folder / str(1 // 0)).touch()
    assert contents(out) == {"first": b""}
    with atomic_folder(out, replace=True) as folder:
        (folder / "second").touch()
    assert contents(out) == {"second": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_fills_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def overtaken() -> None:
        with atomic_folder(out) as folder:
            (folder / "mine").touch()
            out.mkdir()
            (out / "theirs").touch()

    with pytest.raises(UserError, match="is not empty"):
        overtaken()
    assert contents(out) == {"theirs": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_place_of_the_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with (
        pytest.raises(UserError, match="expected a folder, found a file"),
        atomic_folder(tmp_path / "out", replace=True),
    ):
        pytest.fail("the block must not run")
