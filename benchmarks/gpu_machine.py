"""What GPU is here, and whether TensorRT or TensorRT-RTX takes it; nothing here touches the GPU in this process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

from benchmarks.fresh import run_fresh
from edgekit.errors import BackendMissing
from edgekit.runtime.cuda import device_facts
from edgekit.runtime.tensorrt import TENSORRT, TENSORRT_RTX, Flavour
from edgekit.runtime.tensorrt.building import is_installed

__all__ = ["TARGETS", "gpu_facts", "missing", "no_gpu", "refusal"]

TARGETS: Mapping[str, Flavour] = {"rtx": TENSORRT_RTX, "nvidia-gpu": TENSORRT}
"""Target to the library that runs it."""

_TRIAL_LIMIT_S = 300
_ASKED = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "persistence_mode")


def no_gpu() -> str:
    """Says what is missing for a GPU to be used here; empty where nothing is."""
    try:
        device_facts()
    except BackendMissing as error:
        return f"{error.message} ({error.hint})"
    return ""


def missing(flavour: Flavour) -> str:
    """Says what a library's engines miss here: the library, the driver or the GPU; empty where nothing is missing."""
    if not is_installed(flavour):
        return f"{flavour.title} is not installed"
    return no_gpu()


@cache
def refusal(flavour: Flavour) -> str:
    """Says why the library does not run on this GPU; empty where it does.

    It is tried with a tiny engine in a fresh process, since a library may end its process on a GPU that it does not
    know.
    """
    try:
        answered = run_fresh("gpu_trial", {"flavour": flavour.engine_kind}, limit_s=_TRIAL_LIMIT_S)
    except RuntimeError as error:
        return str(error)
    return str(answered["refused"])


def gpu_facts() -> dict[str, Any]:
    """Returns what the driver and nvidia-smi say of the first GPU.

    Raises:
        BackendMissing: There is none.
    """
    first = device_facts()[0]
    facts = {"name": first.name, "compute_capability": first.compute_capability, "cuda_driver": first.driver}
    return {**facts, "count": len(device_facts()), "nvidia_smi": _nvidia_smi()}


def _nvidia_smi() -> dict[str, str] | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_ASKED, (word.strip() for word in done.stdout.strip().split(",")), strict=False))
