from __future__ import annotations

import pytest

import edgekit
from edgekit.compiler import CompileReport
from tests.compiler.world import HERE, World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def compiled(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    """The network for an x86 CPU, with everything on."""
    return edgekit.compile(
        world.net,
        target=HERE,
        task=world.task,
        data=world.data,
        samples=40,
        output=tmp_path_factory.mktemp("compiled") / "colors.edge",
        threads=1,
    )


@pytest.fixture(scope="session")
def fleet(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    """One bundle for a CPU and three boards that are not here."""
    return edgekit.compile(
        world.net,
        target=[HERE, "jetson", "jetson-thor", "intel-npu"],
        task=str(world.task),
        data=str(world.data),
        samples=40,
        output=str(tmp_path_factory.mktemp("fleet") / "colors.edge"),
        timing=False,
        threads=1,
    )
