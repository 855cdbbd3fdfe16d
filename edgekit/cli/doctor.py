"""``edgekit doctor``: what this machine has, what it can run, and what to do next."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import click

from edgekit import __version__
from edgekit.backends import backend_names, get_backend
from edgekit.backends.base import Probe
from edgekit.cli.answer import Answer
from edgekit.cli.options import json_option
from edgekit.config import to_dict
from edgekit.errors import BackendMissing
from edgekit.runtime.machine import check_requires, default_target, describe_machine
from edgekit.table import output_width, pairs, table
from edgekit.targets import Target, list_targets

__all__ = ["command"]

# Distributions that bring each library: importing one would be slow, and fails where it is broken.
_LIBRARIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("numpy", ("numpy",), "everything"),
    (
        "opencv",
        (
            "opencv-python-headless",
            "opencv-python",
            "opencv-contrib-python-headless",
            "opencv-contrib-python",
            "opencv",
        ),
        "run, eval, bench, compile",
    ),
    ("torch", ("torch",), "compile"),
    ("onnx", ("onnx",), "compile"),
    ("onnxscript", ("onnxscript",), "compile"),
)
_STEADY_GOVERNORS = (None, "performance")


@click.command("doctor", epilog="Example: edgekit doctor")
@json_option
def command() -> Answer:
    """Checks this machine: Python, libraries, backends and their devices, CPU, and which targets it can run.

    Exits with 5 when it can run none, and with 0 otherwise.
    """
    machine = describe_machine()
    libraries = {name: _version(distributions) for name, distributions, _ in _LIBRARIES}
    probes = {name: get_backend(name).probe() for name in backend_names()}
    default = default_target()
    problems = {target.name: _problem(target, probes[target.backend]) for target in list_targets()}
    advice = _advice(machine, libraries, probes, problems, default)
    document = {
        "edgekit": __version__,
        "machine": machine,
        "libraries": libraries,
        "backends": {name: to_dict(probe) for name, probe in probes.items()},
        "default_target": default.name,
        "targets": {name: {"runs_here": problem is None, "problem": problem} for name, problem in problems.items()},
        "next": advice,
    }
    text = "\n\n".join(
        [
            _machine_text(machine),
            _libraries_text(libraries),
            _backends_text(probes),
            _targets_text(problems, default.name),
            "next\n" + "\n".join(f"  {line}" for line in advice),
        ]
    )
    none_runs = all(problem is not None for problem in problems.values())
    return Answer(
        schema="edgekit.doctor/1", document=document, text=text, exit_code=BackendMissing.exit_code if none_runs else 0
    )


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _problem(target: Target, probe: Probe) -> str | None:
    """Returns why this machine cannot run a target's engines, or None when it can."""
    problem = check_requires(target.requires)
    if problem is not None and target.requires.on_mismatch == "refuse":
        return problem
    if probe.missing is not None:
        return probe.missing
    device = target.requires.device
    if device and not any(name == device or name.startswith(f"{device}.") for name in probe.devices):
        found = ", ".join(probe.devices) if probe.devices else "none"
        return f"no {device} found (devices: {found})" + (f": {probe.hint}" if probe.hint is not None else "")
    return None


def _advice(
    machine: Mapping[str, Any],
    libraries: Mapping[str, str | None],
    probes: Mapping[str, Probe],
    problems: Mapping[str, str | None],
    default: Target,
) -> list[str]:
    advice = []
    problem, hint = problems[default.name], probes[default.backend].hint
    if problem is not None:
        advice.append(f"to run bundles for {default.name}: {problem if hint is None else hint}")
    if libraries["opencv"] is None:
        advice.append("to read and resize images: python -m pip install 'edgekit[cv]'")
    if any(libraries[name] is None for name in ("torch", "onnx", "onnxscript")):
        advice.append("to compile models: python -m pip install 'edgekit[compile]'")
    if machine["isa_cap"] is not None:
        advice.append(
            f"the instruction set is capped at {machine['isa_cap']} by an environment variable: engines are slower"
        )
    if machine["governor"] not in _STEADY_GOVERNORS:
        advice.append(f"the frequency governor is '{machine['governor']}': set it to 'performance' before measuring")
    return advice if advice else ["nothing is missing; to make a bundle: edgekit compile --help"]


def _machine_text(machine: Mapping[str, Any]) -> str:
    memory = machine["memory_bytes"]
    facts = {
        "edgekit": __version__,
        "Python": machine["python"],
        "system": machine["os"],
        "board": machine["board"],
        "CPU": machine["cpu"],
        "architecture": machine["arch"],
        "cores": f"{machine['cores']}, {machine['usable_cores']} of them usable",
        "flags": " ".join(machine["flags"]),
        "flags capped at": machine["isa_cap"],
        "governor": machine["governor"],
        "memory": None if memory is None else f"{memory / 2**30:.1f} GiB",
    }
    return pairs([(name, str(value)) for name, value in facts.items() if value is not None], width=output_width())


def _libraries_text(libraries: Mapping[str, str | None]) -> str:
    rows = []
    for name, _, used_by in _LIBRARIES:
        version = libraries[name]
        rows.append([name, "not installed" if version is None else version, used_by])
    return table(["library", "version", "used by"], rows, width=output_width())


def _backends_text(probes: Mapping[str, Probe]) -> str:
    rows = []
    for name, probe in probes.items():
        state = str(probe.version)
        if probe.missing is not None:
            state = probe.missing if probe.hint is None else f"{probe.missing}; {probe.hint}"
        rows.append([name, state, ", ".join(probe.devices) if probe.devices else "none"])
    return table(["backend", "version", "devices"], rows, width=output_width())


def _targets_text(problems: Mapping[str, str | None], default: str) -> str:
    rows = [
        [name + (" *" if name == default else ""), "yes" if problem is None else f"no: {problem}"]
        for name, problem in problems.items()
    ]
    return table(["target", "runs here"], rows, width=output_width()) + "\n* the default on this machine"
