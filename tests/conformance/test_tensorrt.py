from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.gpu_machine import missing
from edgekit.backends.base import Backend, Engine, PortableGraph
from edgekit.runtime.session import Session
from edgekit.runtime.tensorrt import TENSORRT, TENSORRT_RTX
from edgekit.runtime.tensorrt.building import build_within_memory
from edgekit.targets import Target
from edgekit.tensorspec import LayerRecord, TensorSpec
from tests.conformance.graphs import FLOAT, Scheme
from tests.conformance.suite import Conformance, RunningConformance
from tests.gpu.grounds import skip_where_refused
from tests.runtime.nvidia import Gpu, bindings, install
from tests.runtime.pretended_tensorrt import tensorrt

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


class GpuConformance(RunningConformance):
    """The engines, run."""

    schemes = (SYMMETRIC,)

    @pytest.fixture
    def session(self, backend: Backend, graph: PortableGraph, target: Target) -> Iterator[Session]:
        with backend.open(self.engine(backend, graph, target)) as session:
            yield session

    def engine(self, backend: Backend, graph: PortableGraph, target: Target) -> Engine:
        """Builds as the target's engines are built."""
        return backend.build(graph, target)

    def take(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        assert len(self.engine(backend, graph, target).files["plan"]) > 0

    def executed(self, session: Session) -> dict[str, str]:
        """A layer of these engines may be several nodes in one."""
        layers = [layer for layer in session.layers() if layer.compute and layer.precision != "unknown"]
        if not layers:
            pytest.skip("the engine does not tell what its layers run in")
        return {node: layer.precision for layer in layers for node in layer.name.split(", ")}


@pytest.mark.gpu
@pytest.mark.skipif(bool(missing(TENSORRT_RTX)), reason=f"no GPU: {missing(TENSORRT_RTX)}")
class TestRtxOnGpu(GpuConformance):
    """TensorRT-RTX's engines on a real GPU."""

    target_name = "rtx"

    @pytest.fixture(autouse=True)
    def accepted(self) -> None:
        skip_where_refused(TENSORRT_RTX)


class BuiltOnDevice(GpuConformance):
    """As ``load`` builds them where the device builds."""

    target_name = "nvidia-gpu"

    def engine(self, backend: Backend, graph: PortableGraph, target: Target) -> Engine:
        options = backend.options(target, graph.precision)
        built = build_within_memory(TENSORRT, graph.data, options)
        assert built.plan is not None, built.reason
        return Engine(
            kind=TENSORRT.engine_kind,
            files={"plan": built.plan},
            options={**options, "builder": built.builder},
            inputs=graph.inputs,
            outputs=graph.outputs,
        )


@pytest.mark.gpu
@pytest.mark.skipif(bool(missing(TENSORRT)), reason=f"no GPU: {missing(TENSORRT)}")
class TestTensorRtOnGpu(BuiltOnDevice):
    """TensorRT's engines on a real GPU."""

    @pytest.fixture(autouse=True)
    def accepted(self) -> None:
        skip_where_refused(TENSORRT)


class TestPretendedGpu(GpuConformance):
    """The classes above on a GPU made of host memory: shows that they are right, and nothing of an engine."""

    target_name = "rtx"

    @pytest.fixture(autouse=True)
    def pretended(self, graph: PortableGraph, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = Gpu()
        install(monkeypatch, {"pycuda": None, **bindings(gpu)})
        install(monkeypatch, tensorrt(gpu, TENSORRT_RTX.package, None, layers=inspected(graph)))

    def engine(self, backend: Backend, graph: PortableGraph, target: Target) -> Engine:
        tables = [{item.name: (item.dtype, _sizes(item)) for item in specs} for specs in (graph.inputs, graph.outputs)]
        text = {"inputs": tables[0], "outputs": tables[1], "graph": base64.b64encode(graph.data).decode()}
        return Engine(
            kind=TENSORRT_RTX.engine_kind,
            files={"plan": json.dumps(text).encode()},
            options=backend.options(target, graph.precision),
            inputs=graph.inputs,
            outputs=graph.outputs,
        )


def _sizes(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]


def inspected(graph: PortableGraph) -> str:
    """What an inspector would say if every planned layer ran in int8, fused with what comes after it."""
    layers = [
        {
            "Name": f"{name} + relu",
            "LayerType": "CaskConvolution",
            "ParameterType": "Convolution",
            "Weights": {"Type": "Int8"},
            "Metadata": f"[ONNX Layer: {name}]\u001e[ONNX Layer: {name}.relu]",
        }
        for name in graph.quantized_layers
    ]
    return json.dumps({"Layers": layers})


def test_an_engine_that_tells_nothing_of_its_layers_is_skipped_and_not_passed() -> None:
    silent = SimpleNamespace(
        layers=lambda: (LayerRecord(name="conv", kind="convolution", precision="unknown", compute=True),)
    )
    with pytest.raises(pytest.skip.Exception, match="does not tell"):
        TestPretendedGpu().executed(cast("Session", silent))
