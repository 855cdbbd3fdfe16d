"""Findings on a Jetson: what is installed, what fits what, and the state that measurements depend on."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.binding import binding_finding
from edgekit.runtime.checkup.software import Software
from edgekit.runtime.checkup.versions import numbers, short
from edgekit.runtime.jetson.jetpack import brought_by
from edgekit.runtime.jetson.state import Jetson
from edgekit.targets import Target

__all__ = ["board_target", "jetson_findings"]

_BUSY_PERCENT = 10  # a choice: below it is what a desktop does
_TENSORRT_11 = (7, 2, 2)  # the first JetPack with TensorRT 11
_AGX_ORIN, _THOR = "p3701-", "tegra264"
_RENEW = "python3 -m venv --system-site-packages"


def board_target(jetson: Jetson, targets: Sequence[Target]) -> Target | None:
    """Returns the target that this board's module is, or None."""
    return next((target for target in targets if set(target.modules) & set(jetson.board.parts)), None)


def jetson_findings(jetson: Jetson, software: Software, targets: Sequence[Target]) -> tuple[Finding, ...]:
    """Returns the findings, in the order in which they are worth looking at.

    Args:
        jetson: What the machine says.
        software: What this Python has.
        targets: All that are known; the board's own says what a build needs.
    """
    target = board_target(jetson, targets)
    return (
        _board(jetson, target),
        _jetpack(jetson),
        _tensorrt(jetson, software, target),
        *_python(jetson, software),
        _cuda(jetson, software),
        binding_finding(software),
        _power(jetson),
        _clocks(jetson),
        _memory(jetson, target),
        *_activity(jetson),
    )


def _board(jetson: Jetson, target: Target | None) -> Finding:
    board = jetson.board
    name = board.model if board.model else "a board without a name"
    parts = ", ".join(board.parts) if board.parts else "no part number"
    if target is None:
        return Finding(
            topic="board",
            found=f"{name} ({board.soc}, {parts}): no target is for its module",
            state="note",
            next="compile for the nearest Jetson target, or for one of your own that names the module: edgekit targets",
        )
    return Finding(topic="board", found=f"{name} ({parts}): target {target.name}", state="fits")


def _jetpack(jetson: Jetson) -> Finding:
    release = jetson.release
    if release is None:
        return Finding(
            topic="JetPack",
            found="/etc/nv_tegra_release is missing or says no release",
            state="unknown",
            next="look on the host: cat /etc/nv_tegra_release (a container does not have it unless it is mounted)",
        )
    version = jetson.jetpack
    found = f"JetPack {'unknown' if version is None else version}, Jetson Linux (L4T) {release}"
    brings = brought_by(release)
    if release.release < 36 or (brings is not None and numbers(brings.tensorrt) < (10, 0)):
        return Finding(
            topic="JetPack",
            found=found,
            state="problem",
            next="edgekit needs TensorRT 10: install JetPack 6.1 or later (SDK Manager, or NVIDIA's upgrade guide)",
        )
    if brings is None:
        return Finding(
            topic="JetPack",
            found=f"{found}: a release that this edgekit does not know",
            state="unknown",
            next="compare TensorRT, CUDA and Python with NVIDIA's release notes",
        )
    if "nvidia-jetpack" not in jetson.packages:
        return Finding(topic="JetPack", found=f"{found}; the package nvidia-jetpack is not installed", state="note")
    return Finding(topic="JetPack", found=found, state="fits")


def _tensorrt(jetson: Jetson, software: Software, target: Target | None) -> Finding:
    version = software.tensorrt.version
    system = jetson.packages.get("python3-libnvinfer")
    if version is None:
        return _tensorrt_missing(software, system)
    found = f"TensorRT {version}"
    brings = None if jetson.release is None else brought_by(jetson.release)
    needed = "10.3" if target is None else str(target.engine.get("version", "10.3"))
    if numbers(version) < numbers(needed):
        return Finding(
            topic="TensorRT",
            found=f"{found}; the target's graphs are for {needed} or later",
            state="problem",
            next=f"upgrade JetPack, or compile for a target of your own with engine.version = '{short(version)}'",
        )
    if numbers(version, 1) >= (11,):
        problem = _against_eleven(jetson)
        if problem:
            return Finding(
                topic="TensorRT",
                found=f"{found}; {problem}",
                state="problem",
                next="stay on the TensorRT 10 of this JetPack, or upgrade to JetPack 7.2.2 or later",
            )
    if brings is None:
        return Finding(topic="TensorRT", found=f"{found}; what this JetPack brings is not known", state="unknown")
    if numbers(version) != numbers(brings.tensorrt):
        return Finding(topic="TensorRT", found=f"{found}; this JetPack came with {brings.tensorrt}", state="note")
    return Finding(topic="TensorRT", found=f"{found}, as this JetPack brings it", state="fits")


def _tensorrt_missing(software: Software, system: str | None) -> Finding:
    if system is None:
        return Finding(
            topic="TensorRT",
            found="not installed, neither for this Python nor for the system's",
            state="problem",
            next=f"sudo apt install nvidia-jetpack, then make the environment with the system's packages: {_RENEW}",
        )
    if software.isolated:
        return Finding(
            topic="TensorRT",
            found=f"{system} is installed for the system's Python, which this environment does not see",
            state="problem",
            next=f"make the environment anew, with the system's packages: {_RENEW}",
        )
    return Finding(
        topic="TensorRT",
        found=f"{system} is installed, and this Python cannot import it: {software.tensorrt.reason}",
        state="problem",
        next="use the python3 that JetPack's packages are for, or install them anew: "
        "sudo apt install --reinstall python3-libnvinfer",
    )


def _against_eleven(jetson: Jetson) -> str:
    """Says why TensorRT 11 is not for this machine; empty where it is.

    Source: TensorRT 11.4.1, "Migrating TensorRT from 10.x to 11.x on Jetson/JetPack": JetPack 7.2.2 or later, on AGX
    Orin and Thor; not on JetPack 6.
    """
    version, board = jetson.jetpack, jetson.board
    known = () if version is None else numbers(version, 3)
    if known and known[0] < 7:
        return "TensorRT 11 is not for JetPack 6"
    if board.soc != _THOR and not any(part.startswith(_AGX_ORIN) for part in board.parts):
        return "on a Jetson, TensorRT 11 is for AGX Orin and Thor"
    if len(known) > 1 and known < _TENSORRT_11:
        return f"TensorRT 11 needs JetPack 7.2.2 or later, this is {version}"
    return ""


def _python(jetson: Jetson, software: Software) -> tuple[Finding, ...]:
    brings = None if jetson.release is None else brought_by(jetson.release)
    if brings is None:
        return ()
    if short(software.python) == brings.python:
        return (Finding(topic="Python", found=f"{software.python}, the one JetPack's packages are for", state="fits"),)
    found = f"{software.python}; JetPack's packages are for {brings.python}"
    if software.tensorrt.version is not None:
        return (Finding(topic="Python", found=found, state="note"),)
    step = f"make the environment with python{brings.python}: python{brings.python} -m venv --system-site-packages"
    return (Finding(topic="Python", found=found, state="problem", next=step),)


def _cuda(jetson: Jetson, software: Software) -> Finding:
    brings = None if jetson.release is None else brought_by(jetson.release)
    toolkit = "no toolkit" if jetson.toolkit is None else f"toolkit {short(jetson.toolkit)}"
    if not software.gpus:
        return Finding(topic="CUDA", found=f"{toolkit}; the driver cannot be asked", state="unknown")
    driver = software.gpus[0].driver
    found = f"driver {driver}, {toolkit}"
    if brings is not None and numbers(driver, 1) != numbers(brings.cuda, 1):
        return Finding(topic="CUDA", found=f"{found}; this JetPack came with {brings.cuda}", state="note")
    if jetson.toolkit is not None and numbers(jetson.toolkit, 1) > numbers(driver, 1):
        return Finding(
            topic="CUDA",
            found=f"{found}: the toolkit is newer than the driver",
            state="note",
            next="programs built with this toolkit need NVIDIA's cuda-compat package, or the toolkit of this JetPack",
        )
    return Finding(topic="CUDA", found=found, state="fits")


def _power(jetson: Jetson) -> Finding:
    mode = jetson.power_mode
    if mode is None:
        return Finding(
            topic="power mode",
            found="nvpmodel does not say",
            state="unknown",
            next="ask with sudo nvpmodel -q: engines are timed and kept by power mode",
        )
    if mode.unlimited:
        return Finding(topic="power mode", found=mode.name, state="fits")
    unlimited = [item for item in jetson.power_modes if item.unlimited]
    # MAXN_SUPER stands above MAXN where a board has both.
    best = max(unlimited, key=lambda item: len(item.name), default=None)
    fastest = "see /etc/nvpmodel.conf" if best is None else f"sudo nvpmodel -m {best.number} ({best.name})"
    return Finding(
        topic="power mode",
        found=f"{mode.name}, which limits clocks or cores",
        state="note",
        next=f"build and measure in the mode that production has; for the fastest: {fastest}",
    )


def _clocks(jetson: Jetson) -> Finding:
    pinned = jetson.clocks.pinned
    if pinned is None:
        return Finding(topic="clocks", found="/sys does not say between which clocks CPU and GPU move", state="unknown")
    ranges = "; ".join(
        f"{name} {min(item.low_mhz for item in clocks):.0f} to {max(item.high_mhz for item in clocks):.0f} MHz"
        for name, clocks in (("CPU", jetson.clocks.cpus), ("GPU", jetson.clocks.gpus))
    )
    if pinned:
        return Finding(topic="clocks", found=f"pinned: {ranges}", state="fits")
    return Finding(
        topic="clocks",
        found=f"they move: {ranges}",
        state="note",
        next="before measuring, pin the clocks: sudo jetson_clocks (until the next start)",
    )


def _memory(jetson: Jetson, target: Target | None) -> Finding:
    memory = jetson.memory
    if memory is None:
        return Finding(topic="memory", found="/proc/meminfo does not say", state="unknown")
    found = f"{memory.available_mib:,} of {memory.total_mib:,} MiB available, {memory.swap_free_mib:,} MiB of swap free"
    workspace = None if target is None else target.engine.get("workspace_mib")
    if not isinstance(workspace, int):
        return Finding(topic="memory", found=found, state="note")
    found += f"; a build may take {workspace:,} MiB of workspace, besides the library and the weights"
    if memory.available_mib < workspace:
        return Finding(
            topic="memory",
            found=found,
            state="problem",
            next="before building: close what else runs (the desktop: sudo systemctl isolate multi-user.target), "
            "or a smaller workspace_mib in a target of your own",
        )
    return Finding(topic="memory", found=found, state="fits")


def _activity(jetson: Jetson) -> tuple[Finding, ...]:
    stats = jetson.stats
    if stats is None:
        return ()
    parts = []
    busy = False
    if stats.gpu is not None and stats.gpu.percent is not None:
        busy = stats.gpu.percent >= _BUSY_PERCENT
        parts.append(f"GPU {stats.gpu.percent} % busy")
    cores = [load.percent for load in stats.cpus if load is not None and load.percent is not None]
    if cores:
        parts.append(f"{len(cores)} of {len(stats.cpus)} cores on, the busiest {max(cores)} %")
    if stats.temperatures_c:
        sensor, degrees = max(stats.temperatures_c.items(), key=lambda item: item[1])
        parts.append(f"hottest {sensor} {degrees:.0f} °C")
    if not parts:
        return ()
    return (
        Finding(
            topic="activity",
            found=", ".join(parts),
            state="note" if busy else "fits",
            next="something else uses the GPU: stop it before measuring" if busy else "",
        ),
    )
