"""Builds engines in a process of their own: the library may end it on a graph that it does not expect."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import edgekit
from edgekit.runtime.tensorrt import Flavour

__all__ = ["Built", "RefusedNode", "build_plan", "build_within_memory", "is_installed"]

OnProgress = Callable[[str, int, int], None]
_LIMIT_S = 1800
_SHORT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient (device )?(memory|workspace)|cannot allocate memory", re.I)


@dataclass(frozen=True, kw_only=True)
class RefusedNode:
    """A node of the graph that the parser does not take.

    Attributes:
        node: Its name in the graph.
        operator: ONNX operator.
        reason: The parser's words.
    """

    node: str
    operator: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """Outcome of one build.

    Attributes:
        builder: The library and its version.
        plan: The serialized engine; None where there is none.
        build_s: Seconds from graph to engine; None without an engine.
        reason: Why there is none, in the library's words; empty where there is.
        refused: The nodes at which the parser stopped.
        warnings: What the library remarked.
        timings: The builder's timing cache after the build; None where it keeps none.
        timings_dropped: Why the timings given were not used; empty where they were.
    """

    builder: str
    plan: bytes | None = field(default=None, repr=False)
    build_s: float | None = None
    reason: str = ""
    refused: tuple[RefusedNode, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: bytes | None = field(default=None, repr=False)
    timings_dropped: str = ""


def _ignore(phase: str, done: int, of: int) -> None:
    """Shows nothing."""


def is_installed(flavour: Flavour) -> bool:
    """Says whether the flavour's package is there, without importing it."""
    return importlib.util.find_spec(flavour.package) is not None


def build_plan(
    flavour: Flavour,
    data: bytes,
    options: Mapping[str, Any],
    *,
    timings: bytes | None = None,
    limit_s: float = _LIMIT_S,
    on_progress: OnProgress = _ignore,
) -> Built:
    """Parses and builds the graph in a child process, which may crash without harm.

    Args:
        flavour: Whose builder.
        data: Serialized ONNX model.
        options: As made by :func:`edgekit.backends.tensorrt.options.build_options`.
        timings: The builder's timing cache; empty: a new one; None: none that is kept.
        limit_s: The child is ended after this many seconds.
        on_progress: Is told the builder's phase, how many of its steps are done, and of how many.

    Returns:
        The outcome; a refusal, a crash and a build that takes too long are outcomes, not errors.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-build-") as name:
        folder = Path(name)
        (folder / "graph.onnx").write_bytes(data)
        (folder / "options.json").write_text(json.dumps(dict(options)), encoding="utf-8")
        if timings is not None:
            (folder / "timings.in").write_bytes(timings)
        command = [sys.executable, "-m", "edgekit.runtime.tensorrt.builder", str(folder), flavour.package]
        code = _run(command, folder / "stderr.txt", limit_s, on_progress)
        if code is None:
            return Built(builder=flavour.title, reason=f"not built within {limit_s:g} s")
        outcome_path, plan_path, timings_path = (
            folder / name for name in ("outcome.json", "engine.plan", "timings.out")
        )
        if code != 0 or not outcome_path.exists():
            return Built(builder=flavour.title, reason=_death(code, folder / "stderr.txt"))
        outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
        return Built(
            builder=f"{flavour.title} {outcome['builder']}",
            plan=plan_path.read_bytes() if plan_path.exists() else None,
            build_s=outcome["build_s"],
            reason=outcome["reason"],
            refused=tuple(RefusedNode(**item) for item in outcome["refused"]),
            warnings=tuple(outcome["warnings"]),
            timings=timings_path.read_bytes() if timings_path.exists() else None,
            timings_dropped=outcome["timings_dropped"],
        )


def _run(command: Sequence[str], errors: Path, limit_s: float, on_progress: OnProgress) -> int | None:
    """Runs the child and passes its progress on; returns its exit status, or None where it took too long."""
    late = threading.Event()
    with (
        errors.open("wb") as stream,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, env=_environment(), text=True) as child,
    ):

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                _pass_on(line, on_progress)
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
    return None if late.is_set() else child.returncode


def _pass_on(line: str, on_progress: OnProgress) -> None:
    """The library may print lines of its own; they are no progress."""
    try:
        told = json.loads(line)
        phase, done, of = str(told["phase"]), int(told["done"]), int(told["of"])
    except (ValueError, KeyError, TypeError):
        return
    on_progress(phase, done, of)


def build_within_memory(
    flavour: Flavour,
    data: bytes,
    options: Mapping[str, Any],
    *,
    timings: bytes | None = None,
    on_progress: OnProgress = _ignore,
) -> Built:
    """Builds as :func:`build_plan` does; where memory is short, again with less workspace and a lower builder level."""
    built = build_plan(flavour, data, options, timings=timings, on_progress=on_progress)
    tried = []
    for share, level in ((2, 2), (4, 0)):
        if built.plan is not None or not _SHORT_OF_MEMORY.search(built.reason):
            return built
        less = {
            **options,
            "workspace_mib": max(64, (options["workspace_mib"] or 1024) // share),
            "builder_optimization_level": min(level, options["builder_optimization_level"] or level),
        }
        tried.append(f"{less['workspace_mib']} MiB and level {less['builder_optimization_level']}")
        built = build_plan(flavour, data, less, timings=timings, on_progress=on_progress)
    if built.plan is None and tried:
        return replace(built, reason=f"{built.reason}; tried again with a workspace of {', then '.join(tried)}")
    return built


def _environment() -> dict[str, str]:
    # The child must find this very package, also where it is not installed but lies in the working folder.
    root = str(Path(edgekit.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not inherited else os.pathsep.join([root, inherited])}


def _death(code: int, errors: Path) -> str:
    if code < 0:
        return f"the builder's process was ended by signal {signal.Signals(-code).name}"
    lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the builder's process ended with {code}: {lines[-1] if lines else 'no message'}"
