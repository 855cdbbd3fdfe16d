"""What ran is proved by the engine: where a layer disagrees with the plan, the report or ``--strict`` says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgekit.backends.base import Backend, Engine
from edgekit.compiler import CompileOptions, CompileReport
from edgekit.errors import GateFailed
from edgekit.runtime.session import Session
from tests.compiler.world import HERE, World, Wrapped, compile_with


@dataclass(frozen=True, kw_only=True)
class FloatConvolutions(Wrapped):
    """The real backend with an option of OpenVINO's CPU plugin that leaves convolutions in float."""

    def open(self, engine: Engine, *, threads: int | None = None, streams: int | None = None) -> Session:
        properties = {**engine.options["properties"], "LP_TRANSFORMS_MODE": "NO"}
        forced = replace(engine, options={**engine.options, "properties": properties})
        return self.inner.open(forced, threads=threads, streams=streams)


def forced(backend: Backend) -> Backend:
    return FloatConvolutions(inner=backend)


def as_it_is(backend: Backend) -> Backend:
    return backend


def options(world: World, output: Path, *, strict: bool) -> CompileOptions:
    return CompileOptions(
        targets=(HERE,),
        task=world.task,
        data=world.data,
        samples=40,
        output=output,
        precision="int8",
        threads=1,
        timing=False,
        strict=strict,
    )


def test_a_layer_that_ran_float_is_a_finding_and_a_warning(world: World, tmp_path: Path) -> None:
    report: CompileReport = compile_with(forced, world.net, options(world, tmp_path / "m.edge", strict=False))
    (target,) = report.targets
    (finding,) = target.candidate("int8").findings
    assert finding == "3 of 4 layers planned int8 ran otherwise: stem.0, one.0, two.0"
    assert target.candidate("int8").layer_counts() == {"fp32": 3, "int8": 1}
    assert any(finding in warning for warning in report.warnings)


def test_strict_makes_it_an_error_and_writes_nothing(world: World, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="does not run as planned") as caught:
        compile_with(forced, world.net, options(world, tmp_path / "m.edge", strict=True))
    assert "stem.0, one.0, two.0" in caught.value.message
    assert not (tmp_path / "m.edge").exists()


def test_strict_has_nothing_against_an_engine_that_runs_as_planned(world: World, tmp_path: Path) -> None:
    report = compile_with(as_it_is, world.net, options(world, tmp_path / "m.edge", strict=True))
    assert report.targets[0].candidate("int8").layer_counts() == {"int8": 4}
