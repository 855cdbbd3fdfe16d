"""Builds a graph once on this machine, so that one which TensorRT cannot take fails here and not on the device."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import edgekit
from edgekit.backends.base import Rehearsal
from edgekit.backends.tensorrt.flavour import Flavour

__all__ = ["is_installed", "rehearse_build"]

_LIMIT_S = 1800


def is_installed(flavour: Flavour) -> bool:
    """Says whether the flavour's package is there, without importing it."""
    return importlib.util.find_spec(flavour.package) is not None


def rehearse_build(
    flavour: Flavour, data: bytes, options: Mapping[str, Any], *, limit_s: float = _LIMIT_S
) -> Rehearsal:
    """Parses and builds the graph in a child process, which may crash without harm.

    Args:
        flavour: Whose builder.
        data: Serialized ONNX model.
        options: As made by :func:`edgekit.backends.tensorrt.options.build_options`.
        limit_s: The child is ended after this many seconds.

    Returns:
        The outcome; a refusal, a crash and a build that takes too long are outcomes, not errors.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-rehearsal-") as name:
        folder = Path(name)
        (folder / "graph.onnx").write_bytes(data)
        (folder / "options.json").write_text(json.dumps(dict(options)), encoding="utf-8")
        command = [sys.executable, "-m", "edgekit.backends.tensorrt.builder", str(folder), flavour.package]
        try:
            child = subprocess.run(command, capture_output=True, env=_environment(), timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return Rehearsal(builder=flavour.title, built=False, reason=f"not built within {limit_s:g} s")
        outcome_path = folder / "outcome.json"
        if child.returncode != 0 or not outcome_path.exists():
            return Rehearsal(builder=flavour.title, built=False, reason=_death(child))
        outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
    return Rehearsal(
        builder=f"{flavour.title} {outcome['builder']}",
        built=outcome["built"],
        engine_size_bytes=outcome.get("engine_size_bytes"),
        build_s=outcome.get("build_s"),
        reason=outcome["reason"],
    )


def _environment() -> dict[str, str]:
    # The child must find this very package, also where it is not installed but lies in the working folder.
    root = str(Path(edgekit.__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not inherited else os.pathsep.join([root, inherited])}


def _death(child: subprocess.CompletedProcess[bytes]) -> str:
    if child.returncode < 0:
        return f"the builder's process was ended by signal {signal.Signals(-child.returncode).name}"
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    return f"the builder's process ended with {child.returncode}: {lines[-1] if lines else 'no message'}"
