"""Fresh processes: a module of this package takes one JSON argument and prints one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["answer", "run_fresh"]

ROOT = Path(__file__).resolve().parent.parent

# NNCF and OpenVINO's tools report their use to a server unless they take the process for a test.
_ENVIRONMENT = {"CI": "true", "NNCF_CI": "1"}


def run_fresh(module: str, task: dict[str, Any], *, limit_s: float | None = None) -> dict[str, Any]:
    """Runs ``python -m benchmarks.<module> '<json>'`` and returns what it answered.

    Args:
        module: Of this package.
        task: What it is told.
        limit_s: The process is ended after this many seconds; None lets it take its time.

    Raises:
        RuntimeError: The process failed or took too long; the message ends with what it wrote to stderr.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(task)]
    environment = {**os.environ, **_ENVIRONMENT}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"benchmarks.{module} did not end within {limit_s:g} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"benchmarks.{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def answer(facts: dict[str, Any]) -> None:
    """Prints a worker's facts as the last line of its output."""
    sys.stdout.write("\n" + json.dumps(facts) + "\n")
