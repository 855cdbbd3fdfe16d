from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.backends.tensorrt.options import build_options
from edgekit.runtime.tensorrt import TENSORRT, TENSORRT_RTX
from edgekit.runtime.tensorrt.builder import Made, parse_and_build
from edgekit.runtime.tensorrt.building import build_plan, is_installed
from edgekit.targets import load_target
from tests.backends.tensorrt.graphs import graph_of, node

OPTIONS = build_options(load_target("jetson"), "int8")
with_builder = pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")


@with_builder
def test_a_good_graph_becomes_an_engine() -> None:
    built = build_plan(TENSORRT_RTX, graph_of([node("Relu", ["x"], "y")]).data, OPTIONS)
    assert built.plan, built.reason
    assert built.builder.startswith("TensorRT-RTX 1.")
    assert built.build_s is not None
    assert (built.reason, built.refused) == ("", ())


@with_builder
def test_the_builder_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    graph = graph_of([node("Relu", ["x"], "r"), node("Sigmoid", ["r"], "s"), node("Exp", ["s"], "y")])
    built = build_plan(TENSORRT_RTX, graph.data, OPTIONS, on_progress=lambda *item: told.append(item))
    assert built.plan
    assert told
    phase, done, of = told[-1]
    assert phase
    assert done == of > 0


@with_builder
def test_a_dynamic_batch_gets_a_profile() -> None:
    graph = graph_of([node("Relu", ["x"], "y")], shape=("batch", 3, 8, 8))
    assert build_plan(TENSORRT_RTX, graph.data, OPTIONS).plan


@with_builder
def test_the_profile_is_the_one_that_was_asked_for() -> None:
    import tensorrt_rtx

    profiles = []

    class Watched:
        """The real library, whose builder keeps the profiles that it makes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tensorrt_rtx, name)

        class Builder(tensorrt_rtx.Builder):
            def create_optimization_profile(self) -> Any:
                profiles.append(super().create_optimization_profile())
                return profiles[-1]

    graph = graph_of([node("Relu", ["x"], "y")], shape=("batch", 3, 8, 8))
    made = parse_and_build(Watched(), graph.data, {**OPTIONS, "batch": [1, 4, 16]})
    assert made.plan is not None, made.outcome["reason"]
    (profile,) = profiles
    assert [tuple(shape) for shape in profile.get_shape("x")] == [(1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8)]


@with_builder
def test_an_engine_for_named_gpu_generations_is_another_one() -> None:
    graph = graph_of([node("Relu", ["x"], "y")])
    plans = [
        build_plan(TENSORRT_RTX, graph.data, {**OPTIONS, "compute_capabilities": named}).plan
        for named in ([], ["7.5"], ["8.6", "8.9"])
    ]
    assert all(plans)
    assert len({plan for plan in plans if plan is not None}) == 3


@with_builder
def test_a_refused_graph_names_node_and_operator() -> None:
    built = build_plan(TENSORRT_RTX, graph_of([node("Det", ["x"], "determinant")]).data, OPTIONS)
    assert built.plan is None
    assert built.build_s is None
    assert [(item.node, item.operator) for item in built.refused] == [("determinant", "Det")]
    assert "node 'determinant' (Det)" in built.reason


@with_builder
def test_bytes_that_are_no_model_are_an_outcome_too() -> None:
    built = build_plan(TENSORRT_RTX, b"no model", OPTIONS)
    assert built.plan is None
    assert built.reason


def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "stand_in_library.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_library_that_kills_its_process_leaves_this_one_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    built = build_plan(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS)
    assert built.plan is None
    assert built.reason == "the builder's process was ended by signal SIGSEGV"


def test_a_library_that_raises_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "raise RuntimeError('no such driver')")
    built = build_plan(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS)
    assert "no such driver" in built.reason


def test_a_build_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, "import time; time.sleep(600)")
    built = build_plan(replace(TENSORRT_RTX, package="stand_in_library"), b"", OPTIONS, limit_s=1)
    assert built.reason == "not built within 1 s"


def _real(timings: bytes | None) -> Made:
    library = pytest.importorskip("tensorrt_rtx")
    return parse_and_build(library, graph_of([node("Relu", ["x"], "y")]).data, OPTIONS, timings=timings)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_builder_starts_a_timing_cache_and_takes_it_again() -> None:
    """TensorRT-RTX still has TensorRT's calls, though there they change nothing."""
    first = _real(b"")
    assert (first.plan is not None, first.outcome["timings_dropped"]) == (True, "")
    kept = bytes(first.timings)
    assert kept
    again = _real(kept)
    assert again.plan is not None
    assert bytes(again.timings) == kept
    assert _real(None).timings is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_builder_drops_what_is_no_timing_cache_and_builds_all_the_same() -> None:
    made = _real(b"this is no timing cache")
    assert "Failed to deserialize timing cache" in made.outcome["timings_dropped"]
    # The library speaks of its logger where a process makes several builders, as tests do.
    assert [line for line in made.outcome["warnings"] if "logger" not in line] == []
    assert made.plan is not None
    assert bytes(made.timings)


def test_tensorrt_rtx_is_given_no_timing_cache() -> None:
    """It would ask for a GPU, and change nothing."""
    assert [flavour.times_kernels for flavour in (TENSORRT, TENSORRT_RTX)] == [True, False]
