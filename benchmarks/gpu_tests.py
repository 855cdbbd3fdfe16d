"""Runs the tests that are marked ``gpu`` and says what came of them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fresh import ROOT

__all__ = ["run_tests", "summarize"]

_SHOWN = 300


def run_tests(*, soak_calls: int, limit_s: float) -> dict[str, Any]:
    """Runs ``pytest -m gpu`` in a process of its own.

    Args:
        soak_calls: For the tests of memory.
        limit_s: The tests are ended after this many seconds.

    Returns:
        As :func:`summarize`; ``failed`` alone where there is no outcome.
    """
    if importlib.util.find_spec("pytest") is None:
        return {"failed": "pytest is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "gpu.xml"
        # Libraries that other tests need may be missing here: a file that does not load must not end the run.
        options = ["-m", "gpu", "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", "tests"]
        environment = {**os.environ, "EDGEKIT_SOAK_CALLS": str(soak_calls)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"the tests did not end within {limit_s:g} s"}
        if not report.exists():
            return {"failed": f"pytest ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-_SHOWN:]}"}
        return summarize(report.read_text(encoding="utf-8"))


def summarize(report: str) -> dict[str, Any]:
    """Reads a JUnit report.

    Returns:
        ``passed``; ``failures``, the tests that failed or broke with the beginning of why; ``skips``, reason to how
        many.
    """
    passed, failures, skips = 0, {}, Counter[str]()
    for case in ElementTree.fromstring(report).iter("testcase"):
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if wrong is not None:
            failures[f"{case.get('classname')}.{case.get('name')}"] = wrong.get("message", "")[:_SHOWN]
        elif skipped is not None:
            skips[skipped.get("message", "")[:_SHOWN]] += 1
        else:
            passed += 1
    return {"passed": passed, "failures": failures, "skips": dict(skips)}
