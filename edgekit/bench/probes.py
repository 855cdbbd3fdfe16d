"""What only a fresh process can tell: load time, first inference, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import edgekit
from edgekit.errors import StageError

__all__ = ["ProcessProbe", "probe_process"]

_TIMEOUT_S = 600.0
_TAIL = 2000


@dataclass(frozen=True, kw_only=True)
class ProcessProbe:
    """Measurements of fresh processes that load the bundle, run one inference and end.

    Attributes:
        processes: How many were started.
        load_ms: Median time of ``load`` without self-test and without a compilation cache of its own: read and verify
            the bundle, load the engine library, compile the engine.
        first_inference_ms: Median time of the first inference.
        peak_rss_bytes: Largest resident memory of any of them.
        rss_before_bytes: Resident memory before the bundle was opened: Python, numpy and OpenCV.
    """

    processes: int
    load_ms: float
    first_inference_ms: float
    peak_rss_bytes: int
    rss_before_bytes: int


def probe_process(
    path: Path,
    *,
    target: str | None,
    threads: int | None,
    streams: int | None,
    trust_plan: bool = False,
    cuda_graphs: bool = True,
    processes: int = 3,
) -> ProcessProbe:
    """Starts fresh processes and collects what they measured.

    Args:
        path: The bundle.
        target, threads, streams, trust_plan, cuda_graphs: As for :func:`edgekit.runtime.load`.
        processes: How many, one after the other.

    Raises:
        StageError: A process failed or took longer than ten minutes.
    """
    asked = {
        "target": target,
        "threads": threads,
        "streams": streams,
        "trust_plan": trust_plan,
        "cuda_graphs": cuda_graphs,
    }
    options = json.dumps({"path": str(path), **asked})
    facts = [_run(options) for _ in range(processes)]
    return ProcessProbe(
        processes=processes,
        load_ms=median(fact["load_ms"] for fact in facts),
        first_inference_ms=median(fact["first_inference_ms"] for fact in facts),
        peak_rss_bytes=int(max(fact["peak_rss_bytes"] for fact in facts)),
        rss_before_bytes=int(max(fact["rss_before_bytes"] for fact in facts)),
    )


def _run(options: str) -> dict[str, float]:
    # The child must find this very edgekit, also when it was imported from a source tree.
    package_root = str(Path(edgekit.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    search = package_root if inherited is None else os.pathsep.join((package_root, inherited))
    command = [sys.executable, "-m", "edgekit.bench.probe_process", options]
    try:
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StageError(
            f"the fresh process that measures load time did not end within {_TIMEOUT_S:.0f} s", hint="skip the probes"
        ) from error
    if done.returncode != 0:
        tail = done.stderr.decode("utf-8", errors="replace")[-_TAIL:].strip()
        raise StageError(f"the fresh process that measures load time ended with {done.returncode}:\n{tail}")
    facts: dict[str, float] = json.loads(done.stdout.decode("utf-8", errors="replace").strip().splitlines()[-1])
    return facts
