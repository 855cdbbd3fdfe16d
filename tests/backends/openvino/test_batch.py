"""A dynamic batch in OpenVINO's engines: bounded where the target says so, refused where the device takes none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openvino as ov
import pytest

from edgekit.backends.base import Engine, PortableGraph
from edgekit.backends.openvino.backend import OpenVinoBackend
from edgekit.backends.openvino.options import engine_table
from edgekit.errors import ConfigError
from edgekit.export import export_portable
from edgekit.targets import Portable, Target, load_target
from tests.networks import folded

CPU, NPU = load_target("x86-cpu"), load_target("intel-npu")


def sized(target: Target, *batch: int) -> Target:
    return replace(target, engine={**target.engine, "batch": list(batch)})


@pytest.fixture(scope="module")
def graph() -> PortableGraph:
    return export_portable(folded("residual"), portable=Portable(), precision="fp32", dynamic_batch=True)


def shapes(engine: Engine) -> list[Any]:
    model = ov.Core().read_model(engine.files["xml"], engine.files["bin"])
    return [port.get_partial_shape()[0] for port in (*model.inputs, *model.outputs)]


def test_the_bound_is_in_the_engine(graph: PortableGraph) -> None:
    plain, bounded = (OpenVinoBackend().build(graph, target) for target in (CPU, sized(CPU, 1, 4, 16)))
    assert [(size.get_min_length(), size.get_max_length()) for size in shapes(bounded)] == [(1, 16), (1, 16)]
    assert all(size.is_dynamic and size.get_max_length() == -1 for size in shapes(plain))
    assert bounded.files["bin"] == plain.files["bin"]
    assert bounded.options == plain.options
    assert OpenVinoBackend().build(graph, sized(CPU, 1, 4, 16)).files == bounded.files


@pytest.mark.parametrize(("batch", "found"), [((1, 4, 16), True), ((1, 16, 16), False), ((1, 1, 16), False)])
def test_a_best_size_that_is_not_kept_is_a_finding(graph: PortableGraph, batch: tuple[int, ...], found: bool) -> None:
    findings = OpenVinoBackend().build(graph, sized(CPU, *batch)).findings
    assert bool(findings) == found
    assert not findings or "of batch 1/4/16 it keeps the largest alone" in findings[0]


def test_the_npu_takes_one_size() -> None:
    with pytest.raises(ConfigError, match="target 'intel-npu': engine: batch: OpenVINO's NPU takes engines of one"):
        engine_table(sized(NPU, 1, 8, 8))
    assert engine_table(sized(NPU, 1, 1, 1)).batch == (1, 1, 1)


def test_a_graph_with_a_dynamic_batch_is_refused_where_one_image_is_allowed(graph: PortableGraph) -> None:
    verdicts = OpenVinoBackend().supports(graph, sized(CPU, 1, 1, 1))
    refused = [(item.node, item.operator, item.reason) for item in verdicts if not item.supported]
    assert refused == [("image", "Input", "a dynamic batch: the target's engine.batch allows one image")]
    assert all(item.supported for item in OpenVinoBackend().supports(graph, sized(CPU, 1, 4, 16)))
