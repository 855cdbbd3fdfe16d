from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.backends.tensorrt.flavour import TENSORRT_RTX
from edgekit.backends.tensorrt.options import build_options
from edgekit.backends.tensorrt.rehearsal import is_installed, rehearse_build
from edgekit.targets import load_target
from tests.backends.tensorrt.graphs import graph_of, node

OPTIONS = build_options(load_target("jetson"), "int8")
with_builder = pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")


@with_builder
def test_a_good_graph_is_built_and_measured() -> None:
    rehearsal = rehearse_build(TENSORRT_RTX, graph_of([node("Relu", ["x"], "y")]).data, OPTIONS)
    assert rehearsal.built, rehearsal.reason
    assert rehearsal.builder.startswith("TensorRT-RTX 1.")
    assert rehearsal.engine_size_bytes is not None
    assert rehearsal.engine_size_bytes > 0
    assert rehearsal.build_s is not None


@with_builder
def test_a_dynamic_batch_gets_a_profile() -> None:
    graph = graph_of([node("Relu", ["x"], "y")], shape=("batch", 3, 8, 8))
    assert rehearse_build(TENSORRT_RTX, graph.data, OPTIONS).built


@with_builder
def test_a_refused_graph_names_node_and_operator() -> None:
    rehearsal = rehearse_build(TENSORRT_RTX, graph_of([node("Det", ["x"], "determinant")]).data, OPTIONS)
    assert not rehearsal.built
    assert rehearsal.engine_size_bytes is None
    assert "node 'determinant' (Det)" in rehearsal.reason


@with_builder
def test_bytes_that_are_no_model_are_an_outcome_too() -> None:
    rehearsal = rehearse_build(TENSORRT_RTX, b"no model", OPTIONS)
    assert not rehearsal.built
    assert rehearsal.reason


def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "stand_in_library.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_library_that_kills_its_process_leaves_this_one_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    rehearsal = rehearse_build(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS)
    assert not rehearsal.built
    assert rehearsal.reason == "the builder's process was ended by signal SIGSEGV"


def test_a_library_that_raises_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "raise RuntimeError('no such driver')")
    rehearsal = rehearse_build(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS)
    assert "no such driver" in rehearsal.reason


def test_a_build_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "import time; time.sleep(600)")
    rehearsal = rehearse_build(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS, limit_s=1)
    assert rehearsal.reason == "not built within 1 s"
