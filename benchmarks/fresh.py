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


def run_fresh(module: str, task: dict[str, Any]) -> dict[str, Any]:
    """Runs ``python -m benchmarks.<module> '<json>'`` and returns what it answered.

    Raises:
        RuntimeError: The process failed; the message ends with what it wrote to stderr.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(task)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **_ENVIRONMENT}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"benchmarks.{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def answer(facts: dict[str, Any]) -> None:
    """Prints a worker's facts as the last line of its output."""
    sys.stdout.write("\n" + json.dumps(facts) + "\n")
