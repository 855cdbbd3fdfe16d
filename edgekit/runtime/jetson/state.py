"""All that a Jetson says of itself, looked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.runtime.jetson.board import Board, read_board
from edgekit.runtime.jetson.clocks import Clocks, read_clocks
from edgekit.runtime.jetson.jetpack import jetpack_version
from edgekit.runtime.jetson.memory import Memory, read_memory
from edgekit.runtime.jetson.packages import read_packages, read_toolkit
from edgekit.runtime.jetson.power import PowerMode, read_power_mode, read_power_modes
from edgekit.runtime.jetson.release import Release, read_release
from edgekit.runtime.jetson.sources import Sources
from edgekit.runtime.jetson.tegrastats import Tegrastats, read_tegrastats

__all__ = ["Jetson", "look"]


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """A Jetson; None and empty where it does not say.

    Attributes:
        board: From the device tree.
        release: Of Jetson Linux.
        packages: JetPack's and TensorRT's system packages with their versions.
        toolkit: Version of CUDA's toolkit.
        power_mode: The mode that it is in.
        power_modes: Those that it has.
        clocks: Ranges of CPU and GPU.
        memory: Free and in all.
        stats: One line of tegrastats.
    """

    board: Board
    release: Release | None
    packages: Mapping[str, str]
    toolkit: str | None
    power_mode: PowerMode | None
    power_modes: tuple[PowerMode, ...]
    clocks: Clocks
    memory: Memory | None
    stats: Tegrastats | None

    @property
    def jetpack(self) -> str | None:
        """JetPack's version: that of its package, else what the release belongs to."""
        package = self.packages.get("nvidia-jetpack")
        if package is not None:
            return package.partition("+")[0].partition("-")[0]
        return None if self.release is None else jetpack_version(self.release)


def look(sources: Sources) -> Jetson | None:
    """Looks at the machine; None where it is no Jetson. Reads and asks, and sets nothing."""
    board = read_board(sources)
    if board is None:
        return None
    return Jetson(
        board=board,
        release=read_release(sources),
        packages=read_packages(sources),
        toolkit=read_toolkit(sources),
        power_mode=read_power_mode(sources),
        power_modes=read_power_modes(sources),
        clocks=read_clocks(sources),
        memory=read_memory(sources),
        stats=read_tegrastats(sources),
    )
