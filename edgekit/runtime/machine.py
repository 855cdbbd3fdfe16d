"""What this machine is: the instruction set that engines may use here, and the facts that reports carry."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.targets import Requires, Target, load_target

__all__ = ["check_requires", "cpu_flags", "default_target", "describe_machine"]

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")

_SSE41, _AVX, _AVX2, _AVX2_VNNI, _AVX2_VNNI_2 = 0x1, 0x2, 0x4, 0x8, 0x10
_AVX512, _AVX512_VNNI, _AVX512_BF16, _AVX512_FP16 = 0x20, 0x40, 0x80, 0x100
_AMX, _AMX_FP16 = 0xE00, 0x1000

# Source: oneDNN 3.x, `dnnl_cpu_isa_t` (values) and "CPU Dispatcher Control" (names).
_CAPS: Mapping[str, int] = {
    "SSE41": 0x1,
    "AVX": 0x3,
    "AVX2": 0x7,
    "AVX2_VNNI": 0xF,
    "AVX2_VNNI_2": 0x1F,
    "AVX512_CORE": 0x27,
    "AVX512_CORE_VNNI": 0x67,
    "AVX512_CORE_BF16": 0xE7,
    "AVX10_1_512": 0x1EF,
    "AVX512_CORE_FP16": 0x1EF,
    "AVX10_1_512_AMX": 0xFEF,
    "AVX512_CORE_AMX": 0xFEF,
    "AVX10_1_512_AMX_FP16": 0x1FEF,
    "AVX512_CORE_AMX_FP16": 0x1FEF,
}

# Flags as /proc/cpuinfo spells them, with the part of the instruction set that a cap must allow for oneDNN to use them.
_PART_OF_FLAG: Mapping[str, int] = {
    "sse4_1": _SSE41,
    "avx": _AVX,
    "f16c": _AVX2,
    "fma": _AVX2,
    "avx2": _AVX2,
    "avx_vnni": _AVX2_VNNI,
    "avx_vnni_int8": _AVX2_VNNI_2,
    "avx_ne_convert": _AVX2_VNNI_2,
    "avx512f": _AVX512,
    "avx512bw": _AVX512,
    "avx512cd": _AVX512,
    "avx512dq": _AVX512,
    "avx512vl": _AVX512,
    "avx512_vnni": _AVX512_VNNI,
    "avx512_bf16": _AVX512_BF16,
    "avx512_fp16": _AVX512_FP16,
    "amx_tile": _AMX,
    "amx_int8": _AMX,
    "amx_bf16": _AMX,
    "amx_fp16": _AMX_FP16,
}

_ARM_FLAGS_OF_INTEREST = frozenset({"asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sve", "sve2"})

_LIBRARIES = ("edgekit", "numpy", "openvino", "tensorrt", "tensorrt_rtx")
_OPENCV_PACKAGES = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)


def cpu_flags() -> frozenset[str]:
    """Returns the CPU's instruction flags that engines may use here, as /proc/cpuinfo spells them.

    A cap set through ``ONEDNN_MAX_CPU_ISA`` or ``DNNL_MAX_CPU_ISA`` is honoured: what it hides from the inference
    library is left out. Empty where the system has no /proc/cpuinfo.
    """
    cap, found = _isa_cap(os.environ), _stated_flags()
    if cap is None:
        return found
    return frozenset(flag for flag in found if _PART_OF_FLAG.get(flag, 0) & ~cap == 0)


def check_requires(requires: Requires) -> str | None:
    """Says why a target's engines would be wrong or impossible on this machine's processor, or None.

    ``requires.device`` is the inference library's to answer: see :func:`edgekit.runtime.sessions.missing_device`.
    """
    machine = platform.machine()
    if requires.arch and machine not in requires.arch:
        return f"it is made for {' or '.join(requires.arch)}, this machine is {machine}"
    if not requires.cpu_flags_any:
        return None
    flags = cpu_flags()
    if flags.intersection(requires.cpu_flags_any):
        return None
    wanted = " or ".join(requires.cpu_flags_any)
    reason = f" ({requires.reason})" if requires.reason else ""
    if not flags:
        return f"it needs a CPU with {wanted}, and this system does not say what its CPU has{reason}"
    cap = _cap_setting(os.environ)
    lacks = "this one has none of them"
    if cap is not None and _stated_flags().intersection(requires.cpu_flags_any):
        lacks = f"{cap[0]}={cap[1]} hides it here"
    return f"it needs a CPU with {wanted}, {lacks}{reason}"


def default_target() -> Target:
    """Returns the target that this machine is.

    On x86: ``x86-cpu`` where the machine meets what that target requires, else ``x86-cpu-legacy``.
    """
    if platform.machine() in ("aarch64", "arm64"):
        return load_target("arm-cpu")
    target = load_target("x86-cpu")
    return target if check_requires(target.requires) is None else load_target("x86-cpu-legacy")


def describe_machine() -> dict[str, Any]:
    """Returns the facts about this machine that a measurement needs, as plain JSON-able data.

    Keys: ``cpu``, ``arch``, ``cores`` (logical), ``usable_cores`` (this process's), ``flags`` (those that decide
    kernels), ``isa_cap``, ``governor``, ``memory_bytes``, ``os``, ``python``, ``board`` and ``libraries`` (name to
    version). None where the system does not say.
    """
    info = _cpuinfo()
    of_interest = frozenset(_PART_OF_FLAG) | _ARM_FLAGS_OF_INTEREST
    cap = _cap_setting(os.environ)
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": info.get("model name", info.get("Model", platform.processor())),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": os.cpu_count() if affinity is None else len(affinity(0)),
        "flags": sorted(cpu_flags() & of_interest),
        "isa_cap": None if cap is None else cap[1],
        "governor": _text(_GOVERNOR),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "board": _text(_DEVICE_TREE_MODEL),
        "libraries": _library_versions(),
    }


def _stated_flags() -> frozenset[str]:
    """Returns what /proc/cpuinfo states, capped or not."""
    info = _cpuinfo()
    return frozenset(info.get("flags", "").split()) | frozenset(info.get("Features", "").split())


def _cap_setting(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the variable that oneDNN obeys, with its value in capitals; the ONEDNN name hides the older one."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if environment.get(name, ""):
            return name, environment[name].upper()
    return None


def _isa_cap(environment: Mapping[str, str]) -> int | None:
    setting = _cap_setting(environment)
    # oneDNN ignores a value that it does not know, and so does this.
    return None if setting is None else _CAPS.get(setting[1])


@lru_cache(maxsize=1)
def _cpuinfo() -> Mapping[str, str]:
    """Returns the fields of the first processor in /proc/cpuinfo, and those that stand once for all."""
    text = _text(_CPUINFO)
    fields: dict[str, str] = {}
    for line in (text if text is not None else "").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def _memory_bytes() -> int | None:
    if sys.platform != "linux":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _library_versions() -> dict[str, str]:
    versions = {name: version for name in _LIBRARIES if (version := _version(name)) is not None}
    for package in _OPENCV_PACKAGES:
        version = _version(package)
        if version is not None:
            versions["opencv"] = version
            break
    return versions


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
