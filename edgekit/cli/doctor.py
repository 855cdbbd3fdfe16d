"""``edgekit doctor``: what this machine has, what it can run, and what to do next."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from typing import Any

import click

from edgekit import __version__
from edgekit.backends import backend_names, get_backend
from edgekit.backends.base import Probe
from edgekit.cli.answer import Answer
from edgekit.cli.options import json_option
from edgekit.errors import BackendMissing
from edgekit.runtime.machine import check_requires, default_target, describe_machine
from edgekit.table import output_width, pairs, table
from edgekit.targets import Target, list_targets

__all__ = ["command"]

# Distributions that bring each library: an import would be slow, and could crash where the library is broken.
_LIBRARIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("numpy", ("numpy",), "everything"),
    ("opencv", ("opencv-python-headless", "opencv-python", "opencv-contrib-python"), "run, eval, bench"),
    ("torch", ("torch",), "compile"),
    ("onnx", ("onnx",), "compile"),
    ("onnxscript", ("onnxscript",), "compile"),
)


@click.command("doctor", epilog="Example: edgekit doctor")
@json_option
def command() -> Answer:
    """Checks this machine: Python, libraries, backends and their devices, CPU, and which targets it can run.

    Exits with 5 when no backend works here, and with 0 otherwise.
    """
    libraries = {name: _version(distributions) for name, distributions, _ in _LIBRARIES}
    probes = {name: get_backend(name).probe() for name in backend_names()}
    machine = describe_machine()
    default = default_target()
    runs = {target.name: _problem(target, probes) for target in list_targets()}
    advice = _advice(libraries, probes, runs, default)
    usable = any(probe.missing is None for probe in probes.values())
    document = {
        "edgekit": __version__,
        "python": sys.version.split()[0],
        "machine": machine,
        "libraries": libraries,
        "backends": {name: _plain(probe) for name, probe in probes.items()},
        "default_target": default.name,
        "targets": {name: {"runs_here": problem is None, "problem": problem} for name, problem in runs.items()},
        "next": advice,
    }
    text = "\n\n".join(
        [
            pairs(
                [("edgekit", __version__), *((key, _shown(value)) for key, value in machine.items())],
                width=output_width(),
            ),
            table(
                ["library", "version", "used by"],
                [[name, _or(libraries[name], "not installed"), use] for name, _, use in _LIBRARIES],
                width=output_width(),
            ),
            table(
                ["backend", "state", "devices"], [_backend_row(*item) for item in probes.items()], width=output_width()
            ),
            table(
                ["target", "here"],
                [
                    [name + (" *" if name == default.name else ""), _or(problem, "runs")]
                    for name, problem in runs.items()
                ],
                width=output_width(),
            )
            + "\n* the default on this machine",
            "next:\n" + "\n".join(f"  {line}" for line in advice),
        ]
    )
    return Answer(
        schema="edgekit.doctor/1", document=document, text=text, exit_code=0 if usable else BackendMissing.exit_code
    )


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _problem(target: Target, probes: Mapping[str, Probe]) -> str | None:
    """Returns why this machine cannot run a target's engines, or None when it can."""
    problem = check_requires(target.requires)
    if problem is not None:
        return problem
    return probes[target.backend].missing


def _advice(
    libraries: Mapping[str, str | None], probes: Mapping[str, Probe], runs: Mapping[str, str | None], default: Target
) -> list[str]:
    advice = []
    if runs[default.name] is not None:
        hint = probes[default.backend].hint
        advice.append(f"the default target {default.name} does not run here: {_or(hint, runs[default.name])}")
    if libraries["opencv"] is None:
        advice.append("to read and resize images: python -m pip install 'edgekit[cv]'")
    if any(libraries[name] is None for name in ("torch", "onnx", "onnxscript")):
        advice.append("to compile models: python -m pip install 'edgekit[compile]'")
    return advice if advice else ["nothing is missing: edgekit compile --help"]


def _plain(probe: Probe) -> dict[str, Any]:
    return {
        "version": probe.version,
        "devices": probe.devices,
        "missing": probe.missing,
        "hint": probe.hint,
    }


def _backend_row(name: str, probe: Probe) -> list[str]:
    if probe.missing is None:
        return [name, _or(probe.version, "found"), ", ".join(probe.devices)]
    return [name, probe.missing + ("" if probe.hint is None else f"; {probe.hint}"), ""]


def _or(text: str | None, otherwise: str | None) -> str:
    return text if text is not None else str(otherwise)


def _shown(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, (list, tuple, set, frozenset)) else str(value)
