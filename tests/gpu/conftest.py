from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit
from tests.compiler.world import make_world
from tests.gpu.grounds import GROUNDS, Ground, Machine, environment, pretend, skip_where_refused, stand_ins
from tests.networks import module

GOLDEN = 6


@pytest.fixture(scope="session", params=GROUNDS)
def ground(request: pytest.FixtureRequest) -> Ground:
    found = request.param
    assert isinstance(found, Ground)
    if not found.pretended:
        skip_where_refused(found.flavour)
    return found


@pytest.fixture(scope="session")
def prepared(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Two models for the ground's target, compiled once."""
    root = tmp_path_factory.mktemp(f"ground-{ground.target}")
    folder = stand_ins(root / "stand-ins")
    (root / "world").mkdir()
    world = make_world(root / "world")
    bundles = []
    with pytest.MonkeyPatch.context() as patch:
        if ground.pretended:
            # The builder's process alone: compiling needs no driver.
            for name, value in environment(folder).items():
                patch.setenv(name, value)
        for name, net in (("first", world.net), ("second", module("dense"))):
            report = edgekit.compile(
                net,
                task=world.task,
                data=world.data,
                target=ground.target,
                samples=40,
                golden=GOLDEN,
                max_drop=100.0,
                timing=False,
                output=root / f"{name}.edge",
            )
            bundles.append(Path(report.output))
    first, second = bundles
    return Machine(ground=ground, bundles=(first, second), cache=root / "cache", folder=folder, gpu=None)


@pytest.fixture
def machine(prepared: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    if not prepared.ground.pretended:
        yield prepared
        return
    gpu = pretend(monkeypatch, prepared.folder)
    yield Machine(
        ground=prepared.ground, bundles=prepared.bundles, cache=prepared.cache, folder=prepared.folder, gpu=gpu
    )
    assert (gpu.live, gpu.streams, gpu.retained) == ({}, {}, 0)
