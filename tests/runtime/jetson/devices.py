"""Devices in a folder: recorded texts where a device has them, and what its commands printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.runtime.checkup.software import Binding, Library, Software
from edgekit.runtime.cuda import DeviceFacts
from edgekit.runtime.jetson.sources import Sources

RECORDED = Path(__file__).parent / "recorded"
# Not recorded: the names in NVIDIA's device tree source, and the cut text with the chip's name put behind it.
ORIN_NX_COMPATIBLE = "nvidia,p3768-0000+p3767-0001-super\0nvidia,p3767-0001\0nvidia,tegra234\0"
AGX_ORIN_COMPATIBLE = "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0"
MEMORY = "MemTotal:        7802880 kB\nMemFree:          512000 kB\nMemAvailable:    {} kB\nSwapFree:    1048576 kB\n"
PACKAGE = "Package: {}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {}\n"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


def with_nuls(compatible: str) -> str:
    """What the device has: each name with its NUL, which a terminal does not show."""
    return "\0".join(compatible.strip().replace("nvidia,", " nvidia,").split()) + "\0"


def machine(root: Path, files: Mapping[str, str], printed: Mapping[str, str] | None = None) -> Sources:
    """A machine with these files, whose commands printed these texts; a command that is not named does not exist."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    texts = {} if printed is None else printed

    def run(command: Sequence[str], lines: int | None) -> str | None:
        return texts.get(command[0])

    return Sources(root=root, run=run)


def jetson(
    root: Path,
    *,
    model: str,
    compatible: str,
    release: str | None,
    nvpmodel: str | None = None,
    tegrastats: str | None = None,
    packages: Mapping[str, str] | None = None,
    available_kib: int = 6_000_000,
    pinned: bool = False,
    gpu: str = "17000000.gpu",
    modes: str = "",
) -> Sources:
    files = {
        "proc/device-tree/model": f"{model.strip()}\0",
        "proc/device-tree/compatible": compatible,
        "proc/meminfo": MEMORY.format(available_kib),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1728000\n" if pinned else "729600\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
        f"sys/class/devfreq/{gpu}/min_freq": "1020000000\n" if pinned else "306000000\n",
        f"sys/class/devfreq/{gpu}/max_freq": "1020000000\n",
        "sys/class/devfreq/15340000.vic/min_freq": "115200000\n",
        "sys/class/devfreq/15340000.vic/max_freq": "729600000\n",
    }
    if release is not None:
        files["etc/nv_tegra_release"] = release
    if packages is not None:
        files["var/lib/dpkg/status"] = "\n".join(PACKAGE.format(*item) for item in packages.items())
    if modes:
        files["etc/nvpmodel.conf"] = modes
    texts = {"nvpmodel": nvpmodel, "tegrastats": tegrastats}
    return machine(root, files, {name: text for name, text in texts.items() if text is not None})


def software(
    *,
    python: str = "3.10.12",
    isolated: bool = False,
    tensorrt: str | None = None,
    tensorrt_rtx: Library | None = None,
    binding: Binding | None = None,
    gpu: DeviceFacts | None = None,
) -> Software:
    return Software(
        python=python,
        isolated=isolated,
        tensorrt=Library(version=tensorrt, reason="" if tensorrt else "TensorRT cannot be imported: No module named"),
        tensorrt_rtx=Library(version=None, reason="no tensorrt_rtx") if tensorrt_rtx is None else tensorrt_rtx,
        binding=binding,
        gpus=() if gpu is None else (gpu,),
        gpu_problem="" if gpu else "there is no NVIDIA driver on this machine",
    )


ORIN = DeviceFacts(name="Orin", compute_capability="8.7", driver="12.6", integrated=True)
THOR = DeviceFacts(name="NVIDIA Thor", compute_capability="11.0", driver="13.0", integrated=True)
BINDINGS_12 = Binding(name="cuda-bindings", version="12.9.2")
BINDINGS_13 = Binding(name="cuda-bindings", version="13.0.3")
