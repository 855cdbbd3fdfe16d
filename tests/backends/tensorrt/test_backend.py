from __future__ import annotations

import sys

import pytest

from edgekit.backends import get_backend
from edgekit.backends.tensorrt.flavour import TENSORRT_RTX
from edgekit.backends.tensorrt.rehearsal import is_installed
from edgekit.errors import UserError
from edgekit.targets import load_target
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import Scheme

JETSON = load_target("jetson")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_probe_never_raises_and_explains_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what Python itself sets for a module that must not be found
    probe = get_backend(name).probe()
    assert probe.version is None
    assert probe.missing is not None
    assert probe.hint is not None


def test_no_engine_is_built_here_and_the_error_says_what_the_bundle_carries() -> None:
    graph = GOLDENS[0].portable(Scheme(activations="int8"))
    with pytest.raises(UserError, match="does not build TensorRT engines") as caught:
        get_backend("tensorrt").build(graph, JETSON)
    assert caught.value.hint is not None
    assert "build options, from which a device builds" in caught.value.hint


def test_all_precisions_are_candidates_because_nothing_here_can_tell() -> None:
    assert get_backend("tensorrt").precisions_here(JETSON) == JETSON.precisions


@pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")
def test_an_asymmetric_graph_is_not_rehearsed_but_refused_by_rule() -> None:
    """TensorRT-RTX would build it, with another meaning."""
    rehearsal = get_backend("tensorrt").rehearse(GOLDENS[0].portable(Scheme(activations="uint8")), JETSON)
    assert rehearsal is not None
    assert not rehearsal.built
    assert rehearsal.builder == "rules of TensorRT"
    assert "node 'scaled.quantize' (QuantizeLinear): quantized type uint8" in rehearsal.reason
