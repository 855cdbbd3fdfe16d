"""``edgekit doctor``: what this machine has, what it can run, and what to do next. It sets nothing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import click

from edgekit import __version__
from edgekit.backends import backend_names, get_backend
from edgekit.backends.base import Probe
from edgekit.cli.answer import Answer
from edgekit.cli.options import json_option
from edgekit.config import to_dict
from edgekit.errors import BackendMissing
from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.gpu import gpu_findings
from edgekit.runtime.checkup.jetson import board_target, jetson_findings
from edgekit.runtime.checkup.software import Software, installed_software
from edgekit.runtime.cuda.kernel_driver import parse_kernel_driver
from edgekit.runtime.jetson.sources import Sources
from edgekit.runtime.jetson.state import Jetson, look
from edgekit.runtime.machine import check_requires, default_target, describe_machine
from edgekit.table import output_width, pairs, table
from edgekit.targets import Target, list_targets

__all__ = ["command", "examine"]

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
    return examine(Sources(), installed_software())


def examine(sources: Sources, software: Software) -> Answer:
    """Returns the answer of ``edgekit doctor``.

    Args:
        sources: Where NVIDIA's side of the machine is read.
        software: What this Python has of NVIDIA's libraries.
    """
    machine = describe_machine()
    libraries = {name: _version(distributions) for name, distributions, _ in _LIBRARIES}
    probes = {name: get_backend(name).probe() for name in backend_names()}
    targets = list_targets()
    problems = {target.name: _problem(target, probes[target.backend]) for target in targets}
    default, jetson = default_target(), look(sources)
    text = sources.text("proc/driver/nvidia/version")
    driver = None if text is None else parse_kernel_driver(text)
    if jetson is None:
        findings, main = gpu_findings(driver, software, targets), default
    else:
        findings, own = jetson_findings(jetson, software, targets), board_target(jetson, targets)
        main = default if own is None else own
    advice = _advice(machine, libraries, probes, problems, main, findings)
    document = {
        "edgekit": __version__,
        "machine": machine,
        "libraries": libraries,
        "backends": {name: to_dict(probe) for name, probe in probes.items()},
        "default_target": default.name,
        "targets": {name: {"runs_here": problem is None, "problem": problem} for name, problem in problems.items()},
        "nvidia": _nvidia_document(driver, software) if findings else None,
        "jetson": None if jetson is None else _jetson_document(jetson),
        "findings": [to_dict(finding) for finding in findings],
        "next": advice,
    }
    sections = [
        _machine_text(machine),
        _libraries_text(libraries),
        _backends_text(probes),
        *([_findings_text(findings, "NVIDIA" if jetson is None else "Jetson")] if findings else []),
        _targets_text(problems, default.name),
        "next\n" + "\n".join(f"  {line}" for line in advice),
    ]
    none_runs = all(problem is not None for problem in problems.values())
    return Answer(
        schema="edgekit.doctor/1",
        document=document,
        text="\n\n".join(sections),
        exit_code=BackendMissing.exit_code if none_runs else 0,
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
    main: Target,
    findings: Sequence[Finding],
) -> list[str]:
    advice = [f"{finding.topic}: {finding.next}" for finding in findings if finding.next]
    problem, hint = problems[main.name], probes[main.backend].hint
    # Where the machine is a Jetson the findings say it more exactly.
    if problem is not None and not (findings and main.modules):
        advice.append(f"to run bundles for {main.name}: {problem if hint is None else hint}")
    if libraries["opencv"] is None:
        advice.append("to read and resize images: python -m pip install 'edgekit[cv]'")
    if any(libraries[name] is None for name in ("torch", "onnx", "onnxscript")):
        advice.append("to compile models: python -m pip install 'edgekit[compile]'")
    if machine["isa_cap"] is not None:
        advice.append(
            f"the instruction set is capped at {machine['isa_cap']} by an environment variable: engines are slower"
        )
    # On a Jetson the clocks are pinned by other means, whatever the governor.
    if machine["governor"] not in _STEADY_GOVERNORS and not main.modules:
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


def _findings_text(findings: Sequence[Finding], title: str) -> str:
    rows = [[finding.topic, finding.state, finding.found] for finding in findings]
    return table([title, "state", "found"], rows, width=output_width())


def _nvidia_document(driver: str | None, software: Software) -> dict[str, Any]:
    return {
        "driver": driver,
        "binding": None if software.binding is None else to_dict(software.binding),
        "gpus": [to_dict(gpu) for gpu in software.gpus],
    }


def _jetson_document(jetson: Jetson) -> dict[str, Any]:
    return {
        "l4t": None if jetson.release is None else str(jetson.release),
        "jetpack": jetson.jetpack,
        "clocks_pinned": jetson.clocks.pinned,
        **{name: value for name, value in to_dict(jetson).items() if name != "release"},
    }


def _targets_text(problems: Mapping[str, str | None], default: str) -> str:
    rows = [
        [name + (" *" if name == default else ""), "yes" if problem is None else f"no: {problem}"]
        for name, problem in problems.items()
    ]
    return table(["target", "runs here"], rows, width=output_width()) + "\n* the default on this machine"
