from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekit.backends.base import Backend, PortableGraph
from edgekit.errors import BackendMissing
from edgekit.runtime.cuda import device_facts
from edgekit.runtime.session import Session
from edgekit.targets import Target
from tests.conformance.graphs import FLOAT, Scheme
from tests.conformance.suite import Conformance, RunningConformance

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


def _no_gpu() -> str:
    """Why nothing can run here; empty where a GPU is there."""
    try:
        device_facts()
    except BackendMissing as error:
        return error.message
    return ""


NO_GPU = _no_gpu()


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=f"no GPU: {NO_GPU}")
class TestRtxOnGpu(RunningConformance):
    """The same engines, run."""

    target_name = "rtx"
    schemes = (SYMMETRIC,)

    @pytest.fixture
    def session(self, backend: Backend, graph: PortableGraph, target: Target) -> Iterator[Session]:
        with backend.open(backend.build(graph, target)) as session:
            yield session
