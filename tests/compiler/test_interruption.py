"""Ctrl-C and a full disk at any moment of a compilation: the old file stays, and nothing else is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.compiler.world import HERE, World

ROOT = Path(__file__).resolve().parents[2]
OLD = "the old file"
ARCHITECTURE = """
import pathlib
from tests.networks import Residual

def build(started):
    pathlib.Path(started).touch()
    return Residual()
"""


def command(world: World, folder: Path, started: Path) -> list[str]:
    (folder / "arch").mkdir()
    (folder / "arch" / "marked.py").write_text(ARCHITECTURE)
    (folder / "out").mkdir()
    (folder / "out" / "m.edge").write_text(OLD)
    return [
        sys.executable, "-m", "edgekit", "compile", str(world.weights), "--arch", "marked:build",
        "--arch-path", str(folder / "arch"), "--arch-arg", f"started={started}", "--task", str(world.task),
        "--data", str(world.data), "--samples", "40", "--threads", "1", "--target", HERE,
        "-o", str(folder / "out" / "m.edge"),
    ]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    scratch = folder / "scratch"
    scratch.mkdir()
    return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}


@pytest.mark.parametrize("moment", range(4))
def test_ctrl_c_at_any_moment_leaves_the_old_file(moment: int, world: World, tmp_path: Path) -> None:
    started = tmp_path / "started"
    process = subprocess.Popen(
        command(world, tmp_path, started),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        # A job in the background of a shell inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not started.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment + random.Random(moment).random())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left == ["m.edge"]
    if process.returncode == 0:  # a machine so fast that it was done
        return
    # Python may end by the signal itself where C code ran Python when it came; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "interrupted: no partial file was left behind" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "out" / "m.edge").read_text() == OLD
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_full_disk_leaves_the_old_file(world: World, tmp_path: Path) -> None:
    limit = "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "from edgekit.cli.main import main\nfrom edgekit.bundle import write\n"
    # The limit stands for the disk: it is set when the flow is done and the bundle is about to be written.
    limit += "import edgekit.compiler.packing as packing\nreal = packing.write_bundle\n"
    limit += "def full(*words, **more):\n    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    limit += "    return real(*words, **more)\npacking.write_bundle = full\nsys.exit(main(sys.argv[1:]))\n"
    words = command(world, tmp_path, tmp_path / "started")
    done = subprocess.run(
        [sys.executable, "-c", limit, *words[3:]],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "m.edge: cannot write" in done.stderr
    assert "bytes are needed" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.edge"]
    assert (tmp_path / "out" / "m.edge").read_text() == OLD
    assert list((tmp_path / "scratch").iterdir()) == []
