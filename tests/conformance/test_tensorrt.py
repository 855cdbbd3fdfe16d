from __future__ import annotations

import pytest

from edgekit.backends.base import Backend, PortableGraph
from edgekit.targets import Target
from tests.conformance.graphs import FLOAT, Scheme
from tests.conformance.suite import Conformance

pytest.importorskip("tensorrt_rtx")

SYMMETRIC = Scheme(activations="int8")


class RehearsalConformance(Conformance):
    """Engines are built on devices; here TensorRT-RTX's builder, which needs no GPU, proves that graphs are taken."""

    def take(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        rehearsal = backend.rehearse(graph, target)
        assert rehearsal is not None
        assert rehearsal.built, rehearsal.reason
        assert rehearsal.engine_size_bytes is not None
        assert rehearsal.engine_size_bytes > 0
        assert rehearsal.builder.startswith("TensorRT-RTX ")


class TestJetson(RehearsalConformance):
    target_name = "jetson-orin-nano"
    schemes = (FLOAT, SYMMETRIC)


class TestRtx(Conformance):
    """The real engines; what they answer is for a GPU to say."""

    target_name = "rtx"
    schemes = (SYMMETRIC,)

    def take(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        assert len(backend.build(graph, target).files["plan"]) > 0
