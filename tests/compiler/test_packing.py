"""From candidates to the bundle: engines that shrink are stored compressed, and the report says what they take."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest

import edgekit
from edgekit.backends import get_backend
from edgekit.backends.base import PortableGraph
from edgekit.bundle import Bundle, read_bundle
from edgekit.cli.main import main
from edgekit.compiler import CompileReport
from edgekit.compiler.records import CandidateReport, TargetReport
from edgekit.compiler.text import target_text
from edgekit.runtime.tensorrt import TENSORRT_RTX
from edgekit.runtime.tensorrt.building import is_installed
from edgekit.targets import load_target
from tests.compiler.world import World

with_builder = pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")


def ahead(world: World, output: Path) -> CompileReport:
    return edgekit.compile(
        world.net, target=["rtx", "x86-cpu-legacy"], task=world.task, data=world.data, samples=40, timing=False,
        output=output, threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    """Engines of TensorRT-RTX and of OpenVINO in one bundle."""
    return ahead(world, tmp_path_factory.mktemp("ahead") / "colors.edge")


@pytest.fixture(scope="module")
def bundle(made: CompileReport) -> Bundle:
    return read_bundle(made.output)


@with_builder
def test_plans_are_stored_compressed_and_ir_is_not(made: CompileReport, bundle: Bundle) -> None:
    assert [(entry.target, entry.precision) for entry in bundle.manifest.entries] == [
        ("rtx", "int8"), ("rtx", "fp16"), ("x86-cpu-legacy", made.targets[1].shipped[0]),
    ]  # fmt: skip
    *plans, ir = [entry.engine for entry in bundle.manifest.entries]
    for engine, report in zip(plans, made.targets[0].candidates, strict=True):
        assert engine is not None
        assert (engine.files, list(engine.zlib)) == ({}, ["plan"])
        stored = bundle.manifest.files[engine.zlib["plan"].file].size_bytes
        assert (report.engine_bytes, report.stored_bytes) == (engine.zlib["plan"].size_bytes, stored)
        assert report.stored_bytes < report.engine_bytes / 2
        assert f"{report.engine_bytes / 1024:.0f} ({report.stored_bytes / 1024:.0f} in bundle)" in made.to_text()
    assert ir is not None
    assert (set(ir.files), ir.zlib) == ({"xml", "bin"}, {})
    for report in made.targets[1].candidates:
        assert report.stored_bytes == report.engine_bytes > 0


@with_builder
def test_the_plan_that_comes_out_is_the_one_that_the_builder_made(bundle: Bundle) -> None:
    entry = bundle.manifest.entries[0]
    assert entry.engine is not None
    graph = PortableGraph(data=bundle.read(entry.graph), precision="int8", inputs=entry.inputs, outputs=entry.outputs)
    built = get_backend("tensorrt_rtx").build(graph, load_target("rtx"))
    assert bundle.engine_files(entry.engine) == dict(built.files)


@with_builder
def test_a_second_compilation_gives_the_same_digest(made: CompileReport, world: World, tmp_path: Path) -> None:
    assert ahead(world, tmp_path / "again.edge").content_digest == made.content_digest


@with_builder
def test_the_library_that_the_bytes_depend_on_is_named(bundle: Bundle, compiled: CompileReport) -> None:
    assert bundle.manifest.producer["zlib"] == zlib.ZLIB_RUNTIME_VERSION
    assert "zlib" not in read_bundle(compiled.output).manifest.producer


@with_builder
def test_inspect_shows_both_sizes(
    made: CompileReport, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # nothing wraps
    assert main(["inspect", str(made.output), "--target", "rtx"]) == 0
    shown = capfd.readouterr().out
    for report in made.targets[0].candidates:
        assert f"{report.engine_bytes:,} bytes ({report.stored_bytes:,} in bundle)" in shown
        assert f"{report.engine_bytes:,} ({report.stored_bytes:,} in bundle)" in shown


def test_one_size_is_shown_where_both_are_the_same() -> None:
    candidate = CandidateReport(precision="int8", status="shipped", reason="", engine_bytes=4096, stored_bytes=4096)
    target = TargetReport(
        target="t", title="T", shipped=("int8",), why="", latency="unverified", verified_on="not here",
        candidates=(candidate,),
    )  # fmt: skip
    assert "in bundle" not in target_text(target, None)
    smaller = replace(target, candidates=(replace(candidate, stored_bytes=1024),))
    assert "4 (1 in bundle)" in target_text(smaller, None)
