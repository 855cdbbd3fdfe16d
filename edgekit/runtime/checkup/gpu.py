"""Findings on a machine with an NVIDIA card: driver, GPUs against what the targets are for, TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.binding import binding_finding
from edgekit.runtime.checkup.software import Library, Software
from edgekit.runtime.checkup.versions import numbers
from edgekit.runtime.cuda import DeviceFacts
from edgekit.targets import Target

__all__ = ["gpu_findings"]

_RTX = "tensorrt_rtx"
# Source: TensorRT-RTX 1.5, "Support Matrix", Table 1. An engine that names no capability is for Ampere and later.
_SUPPORTED = frozenset({"7.5", "8.6", "8.9", "12.0", "12.1"})
_AMPERE = (8, 0)
# Source: TensorRT 11.4.0, "Prerequisites": r580 or later for the CUDA 13 packages, r535 or later for CUDA 12 wheels.
_DRIVER_OF_CUDA = {12: "535", 13: "580"}


def gpu_findings(driver: str | None, software: Software, targets: Sequence[Target]) -> tuple[Finding, ...]:
    """Returns the findings; none where there is no NVIDIA driver.

    Args:
        driver: Version of the kernel driver; None where its file is missing.
        software: What this Python has.
        targets: All that are known.
    """
    if driver is None and not software.gpus:
        return ()
    return (
        _driver(driver, software),
        *(_gpu(gpu, targets) for gpu in software.gpus),
        _library(software),
        binding_finding(software),
        _tensorrt(software.tensorrt),
    )


def _driver(driver: str | None, software: Software) -> Finding:
    version = "a driver whose version cannot be read" if driver is None else driver
    if not software.gpus:
        return Finding(
            topic="driver",
            found=f"{version}; {software.gpu_problem}",
            state="unknown",
            next="see below, CUDA binding: without it the driver cannot be asked",
        )
    found = f"{version}, CUDA {software.gpus[0].driver}"
    cuda = software.tensorrt_rtx.cuda
    if cuda is not None and numbers(software.gpus[0].driver, 1) < (cuda,):
        return Finding(
            topic="driver",
            found=f"{found}; TensorRT-RTX here is for CUDA {cuda}",
            state="problem",
            next=f"install a driver of the series {_DRIVER_OF_CUDA[cuda]} or later",
        )
    return Finding(topic="driver", found=found, state="unknown" if driver is None else "fits")


def _gpu(gpu: DeviceFacts, targets: Sequence[Target]) -> Finding:
    found = f"{gpu.name}, compute capability {gpu.compute_capability}"
    fitting = [target.name for target in targets if target.backend == _RTX and _is_for(target, gpu)]
    if fitting and gpu.compute_capability in _SUPPORTED:
        return Finding(topic="GPU", found=f"{found}: target {', '.join(fitting)}", state="fits")
    if gpu.compute_capability in _SUPPORTED:
        return Finding(
            topic="GPU",
            found=f"{found}: no target of TensorRT-RTX names it",
            state="problem",
            next="compile for a target of your own like rtx, with "
            f'engine.compute_capabilities = ["{gpu.compute_capability}"]',
        )
    return Finding(
        topic="GPU",
        found=f"{found}: TensorRT-RTX does not list it",
        state="note",
        next="compile for nvidia-gpu, whose engines TensorRT builds on this machine",
    )


def _is_for(target: Target, gpu: DeviceFacts) -> bool:
    named = target.engine.get("compute_capabilities", [])
    return gpu.compute_capability in named if named else numbers(gpu.compute_capability) >= _AMPERE


def _library(software: Software) -> Finding:
    library = software.tensorrt_rtx
    if library.version is None:
        return Finding(
            topic="TensorRT-RTX",
            found=library.reason,
            state="problem",
            next="to run bundles for rtx: python -m pip install 'edgekit[rtx]'",
        )
    built = "" if library.cuda is None else f", for CUDA {library.cuda}"
    return Finding(topic="TensorRT-RTX", found=f"{library.version}{built}", state="fits")


def _tensorrt(library: Library) -> Finding:
    if library.version is None:
        return Finding(topic="TensorRT", found="not installed; only bundles for nvidia-gpu need it", state="note")
    return Finding(topic="TensorRT", found=library.version, state="fits")
