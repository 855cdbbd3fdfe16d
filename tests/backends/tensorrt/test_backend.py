from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from edgekit.backends import get_backend
from edgekit.backends.base import Origin
from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.runtime.tensorrt import TENSORRT_RTX
from edgekit.runtime.tensorrt.building import is_installed
from edgekit.targets import load_target
from tests.backends.tensorrt.graphs import graph_of, node
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import Scheme

JETSON, RTX = load_target("jetson"), load_target("rtx")
with_builder = pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_probe_never_raises_and_explains_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what Python itself sets for a module that must not be found
    probe = get_backend(name).probe()
    assert probe.version is None
    assert probe.missing is not None
    assert probe.hint is not None


def test_an_engine_that_belongs_to_its_device_is_not_built_here() -> None:
    graph = GOLDENS[0].portable(Scheme(activations="int8"))
    with pytest.raises(UserError, match="a TensorRT engine is built on its device") as caught:
        get_backend("tensorrt").build(graph, JETSON)
    assert caught.value.hint is not None
    assert "the portable graph and its build options" in caught.value.hint


def test_without_its_library_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendMissing, match="TensorRT-RTX cannot be imported") as caught:
        get_backend("tensorrt_rtx").build(GOLDENS[0].portable(Scheme(activations="int8")), RTX)
    assert caught.value.hint == "install it: pip install 'edgekit[rtx]'"


@with_builder
def test_tensorrt_rtx_builds_its_engine_without_a_gpu() -> None:
    graph = GOLDENS[0].portable(Scheme(activations="int8"))
    engine = get_backend("tensorrt_rtx").build(graph, RTX)
    assert engine.kind == "tensorrt-rtx-plan"
    assert list(engine.files) == ["plan"]
    assert len(engine.files["plan"]) > 1000
    assert engine.options["builder"].startswith("TensorRT-RTX 1.")
    assert (engine.inputs, engine.outputs) == (graph.inputs, graph.outputs)


@with_builder
def test_a_refusal_names_operator_module_and_line() -> None:
    plain = graph_of([node("Det", ["x"], "determinant")])
    graph = replace(plain, origins={"determinant": Origin(module="head.score", source="heads.py, line 12")})
    with pytest.raises(StageError, match=r"refused the .* graph: Det 'determinant' of module 'head.score'") as caught:
        get_backend("tensorrt_rtx").build(graph, RTX)
    assert "(heads.py, line 12)" in caught.value.message
    assert caught.value.hint is not None
    rehearsal = get_backend("tensorrt").rehearse(graph, JETSON)
    assert rehearsal is not None
    assert "Det 'determinant' of module 'head.score' (heads.py, line 12)" in rehearsal.reason


def test_all_precisions_are_candidates_because_nothing_here_can_tell() -> None:
    assert get_backend("tensorrt").precisions_here(JETSON) == JETSON.precisions


@with_builder
def test_an_asymmetric_graph_is_not_rehearsed_but_refused_by_rule() -> None:
    """TensorRT-RTX would build it, with another meaning."""
    rehearsal = get_backend("tensorrt").rehearse(GOLDENS[0].portable(Scheme(activations="uint8")), JETSON)
    assert rehearsal is not None
    assert not rehearsal.built
    assert rehearsal.builder == "rules of TensorRT"
    assert "QuantizeLinear 'scaled.quantize': quantized type uint8" in rehearsal.reason
