"""Which JetPack a release of Jetson Linux belongs to, and what that JetPack brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.runtime.jetson.release import Release

__all__ = ["Brings", "brought_by", "jetpack_version"]

# Source: NVIDIA's JetPack archive (developer.nvidia.com/embedded/jetpack-archive), the download pages of JetPack 7.0
# and 7.1 (developer.nvidia.com/embedded/jetpack/downloads/archive-7.0.md, archive-7.1.md), for 36.4.7 and 36.5.2 the
# package nvidia-jetpack found on such devices (github.com/osmosishk/driveragent-agx, docs/AGX_AUDIT.md: 6.2.1+b38;
# github.com/rbonghi/jetson_stats, issue 910: 6.2.3+b81), for 39.2 github.com/OE4T/meta-tegra, pull requests 2281, 2339.
# Exact releases alone: of one that is not here, only the first number of its JetPack is told.
_JETPACK: Mapping[str, str] = MappingProxyType(
    {
        "36.2.0": "6.0 DP",
        "36.3.0": "6.0",
        "36.4.0": "6.1",
        "36.4.3": "6.2",
        "36.4.4": "6.2.1",
        "36.4.7": "6.2.1",
        "36.5.0": "6.2.2",
        "36.5.2": "6.2.3",
        "38.2.0": "7.0",
        "38.2.1": "7.0",
        "38.4.0": "7.1",
        "39.2.0": "7.2",
        "39.2.1": "7.2.1",
    }
)
_FIRST_NUMBER: Mapping[int, str] = MappingProxyType({32: "4", 34: "5", 35: "5", 36: "6", 38: "7", 39: "7"})


@dataclass(frozen=True, kw_only=True)
class Brings:
    """What a line of JetPack releases brings; versions are ``major.minor``.

    Attributes:
        since: The first release of Jetson Linux with this.
        tensorrt, cuda, python: Versions.
    """

    since: Release
    tensorrt: str
    cuda: str
    python: str


# Source: JetPack 6.0: TensorRT 8.6, CUDA 12.2 (JetPack 6.0 release notes). 6.1 and 6.2: TensorRT 10.3, CUDA 12.6
# (docs.pytorch.org/TensorRT, "Torch-TensorRT in JetPack"). 7.1: TensorRT 10.13.3, CUDA 13.0, Python 3.12 (an AGX Thor,
# github.com/obiedeh/bench2field, bringup/README.md). 7.2: TensorRT 10.16, CUDA 13.2 (github.com/OE4T/meta-tegra, pull
# request 2224; TensorRT Edge-LLM 0.11.1, "Official Support Matrix").
_LINES: tuple[Brings, ...] = (
    Brings(since=Release(release=36, revision=()), tensorrt="8.6", cuda="12.2", python="3.10"),
    Brings(since=Release(release=36, revision=(4,)), tensorrt="10.3", cuda="12.6", python="3.10"),
    Brings(since=Release(release=38, revision=()), tensorrt="10.13", cuda="13.0", python="3.12"),
    Brings(since=Release(release=39, revision=()), tensorrt="10.16", cuda="13.2", python="3.12"),
)


def jetpack_version(release: Release) -> str | None:
    """Returns the JetPack of a release, such as ``6.2.1``; ``6.x`` where only that much is known; None where nothing.

    >>> jetpack_version(Release(release=36, revision=(4, 4)))
    '6.2.1'
    >>> jetpack_version(Release(release=36, revision=(9, 9)))
    '6.x'
    """
    if str(release) in _JETPACK:
        return _JETPACK[str(release)]
    first = _FIRST_NUMBER.get(release.release)
    return None if first is None else f"{first}.x"


def brought_by(release: Release) -> Brings | None:
    """Returns what the JetPack of a release brings; None where it is older than JetPack 6 or not known."""
    if release.release not in {line.since.release for line in _LINES}:
        return None
    return [line for line in _LINES if line.since <= release][-1]
