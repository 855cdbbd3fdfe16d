"""``torchrun -m edgekit compile`` as a user starts it: run to the end, or killed once a training has a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.passes.train.checkpoint import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 120


class Torchrun:
    """One ``edgekit compile`` in two processes; what they print comes back in one piece at the end."""

    def __init__(self, words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        self._process = subprocess.Popen(
            [*command, "-m", "edgekit", "compile", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )

    def ended(self) -> tuple[int, dict[str, Any], str]:
        """Waits, and returns exit code, the one document of stdout and what was said on stderr."""
        try:
            out, err = self._process.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._kill(signal.SIGKILL)
            raise
        return self._process.returncode, json.loads(out) if out else {}, err

    def killed_in_training(self, checkpoints: Path, how: signal.Signals) -> tuple[int, dict[str, Any], str]:
        """Kills it once it has written a checkpoint: SIGKILL hits all processes, as a power cut; others torchrun."""
        until, found = time.monotonic() + _LIMIT_S, _written(checkpoints)
        while _written(checkpoints) == found:
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no checkpoint was written: {self.ended()}")
            time.sleep(0.005)
        self._kill(how)
        return self.ended()

    def _kill(self, how: signal.Signals) -> None:
        for number in _family(self._process.pid) if how == signal.SIGKILL else [self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, how)


def _written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob(CHECKPOINT)}


def _family(number: int) -> list[int]:
    """A process and all that it started, the eldest first: it would see the others die, and act on it."""
    listed = (Path("/proc") / str(number) / "task").glob("*/children")
    children = [int(word) for path in listed for word in path.read_text().split()]
    return [number, *(item for child in children for item in _family(child))]
