"""One suite for every backend: a subclass names target and schemes, and gets the same goldens and tolerances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

from edgekit.backends import get_backend
from edgekit.backends.base import Backend, PortableGraph
from edgekit.runtime.golden import check_golden, golden_errors
from edgekit.runtime.session import Session
from edgekit.targets import Target, load_target
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import Golden, Scheme
from tests.conformance.reference import reference_outputs

# Largest relative L2 error of an engine against the reference executor on the golden graphs, by precision. They are
# shallow: what was seen is 2e-7 (fp32), 1.4e-3 (fp16), 4.9e-3 (bf16), and for int8 1e-7, or 1.3e-2 where a residual
# add is fused and rounds once less. Saturating 16-bit sums were seen at 0.01 to 0.3.
TOLERANCES = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 1e-2, "int8": 1.5e-2}


DYNAMIC = [golden for golden in GOLDENS if golden.dynamic]


class Conformance:
    """What every backend does with a golden graph, whether or not its device is here."""

    target_name: ClassVar[str]
    schemes: ClassVar[tuple[Scheme, ...]]

    @pytest.fixture
    def target(self) -> Target:
        return load_target(self.target_name)

    @pytest.fixture
    def backend(self, target: Target) -> Backend:
        return get_backend(target.backend)

    @pytest.fixture(params=GOLDENS, ids=lambda golden: golden.name)
    def golden(self, request: pytest.FixtureRequest) -> Golden:
        found = request.param
        assert isinstance(found, Golden)
        return found

    @pytest.fixture
    def graph(self, golden: Golden, scheme: Scheme) -> PortableGraph:
        return golden.portable(scheme)

    def take(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        """Does with the graph all that this machine can, and fails if the backend refuses it."""
        raise AssertionError("a subclass says how its backend takes a graph")

    def test_every_node_is_supported(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        verdicts = backend.supports(graph, target)
        assert verdicts
        assert [verdict for verdict in verdicts if not verdict.supported] == []

    def test_the_options_fit_into_a_bundle(self, backend: Backend, target: Target) -> None:
        for precision in target.precisions:
            options = backend.options(target, precision)
            assert json.loads(json.dumps(options)) == options

    def test_the_graph_is_taken(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        self.take(backend, graph, target)


class RunningConformance(Conformance):
    """What a backend does whose device is here: the engine runs and agrees."""

    @pytest.fixture
    def session(self, backend: Backend, graph: PortableGraph, target: Target) -> Iterator[Session]:
        with backend.open(backend.build(graph, target), threads=1) as session:
            yield session

    def take(self, backend: Backend, graph: PortableGraph, target: Target) -> None:
        engine = backend.build(graph, target)
        assert engine.files
        assert all(engine.files.values())
        assert (engine.inputs, engine.outputs) == (graph.inputs, graph.outputs)

    def test_it_agrees_with_the_reference(self, session: Session, golden: Golden, graph: PortableGraph) -> None:
        inputs = {"image": golden.images()}
        errors = golden_errors(session.infer, inputs, reference_outputs(graph.data, inputs))
        assert check_golden(errors, TOLERANCES[graph.precision]) is None

    def executed(self, session: Session) -> dict[str, str]:
        """The precision that each layer which computes ran in, by its node's name."""
        return {layer.name: layer.precision for layer in session.layers() if layer.compute}

    def test_planned_layers_run_in_int8(self, session: Session, graph: PortableGraph) -> None:
        executed = self.executed(session)
        missing = {name: executed.get(name) for name in graph.quantized_layers if executed.get(name) != "int8"}
        assert missing == {}, f"executed: {executed}"
        if graph.precision == "fp32":
            assert set(executed.values()) == {"fp32"}

    @pytest.mark.parametrize("golden", DYNAMIC, ids=lambda golden: golden.name, indirect=True)
    def test_a_dynamic_batch_equals_single_images(self, session: Session, golden: Golden) -> None:
        images = golden.images()
        together = session.infer({"image": images})
        for name, value in together.items():
            single = np.concatenate([session.infer({"image": image[None]})[name] for image in images])
            np.testing.assert_allclose(value, single, rtol=1e-4, atol=1e-4)
