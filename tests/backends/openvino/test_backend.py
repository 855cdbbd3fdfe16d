from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.backends.base import PortableGraph
from edgekit.backends.openvino.backend import OpenVinoBackend
from edgekit.errors import BackendMissing
from edgekit.targets import load_target
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import FLOAT, Scheme

pytest.importorskip("openvino")

X86 = load_target("x86-cpu")


def _graph(name: str = "conv_relu", scheme: Scheme = FLOAT) -> PortableGraph:
    return next(item for item in GOLDENS if item.name == name).portable(scheme)


def test_probe_finds_version_and_cpu() -> None:
    probe = OpenVinoBackend().probe()
    assert probe.version is not None
    assert "CPU" in probe.devices
    assert probe.missing is None


def test_without_the_library_probe_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # what Python itself sets for a module that must not be found
    backend = OpenVinoBackend()
    probe = backend.probe()
    assert probe.version is None
    assert probe.missing is not None
    assert probe.hint == "install it: pip install 'edgekit[openvino]'"
    with pytest.raises(BackendMissing, match="OpenVINO cannot be imported"):
        backend.build(_graph(), X86)


def test_every_onnx_node_gets_a_verdict_in_order() -> None:
    graph = _graph("attention", Scheme(activations="uint8"))
    verdicts = OpenVinoBackend().supports(graph, X86)
    nodes = onnx.load_from_string(graph.data).graph.node
    assert [(item.node, item.operator) for item in verdicts] == [(node.name, node.op_type) for node in nodes]
    assert all(item.supported for item in verdicts)


def test_an_operator_without_translation_is_named_and_the_rest_is_not_blamed() -> None:
    graph = _graph()
    model = onnx.load_from_string(graph.data)
    index = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.node[index].op_type = "Marvellous"
    verdicts = OpenVinoBackend().supports(replace(graph, data=model.SerializeToString()), X86)
    refused = {item.node: item for item in verdicts if not item.supported}
    assert refused["conv1.relu"].reason == "OpenVINO has no translation for Marvellous"
    assert "conv1" not in refused


def test_a_node_that_fails_to_translate_is_named() -> None:
    graph = _graph()
    model = onnx.load_from_string(graph.data)
    weight = next(item for item in model.graph.initializer if item.name == "conv2.weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), "conv2.weight"))
    verdicts = OpenVinoBackend().supports(replace(graph, data=model.SerializeToString()), X86)
    refused = [item for item in verdicts if not item.supported]
    assert refused
    assert all(item.reason for item in refused)


def test_a_device_that_is_not_here_is_not_vouched_for() -> None:
    target = load_target("intel-npu")
    if any(name.startswith("NPU") for name in OpenVinoBackend().probe().devices):
        pytest.skip("there is an NPU here")
    verdicts = OpenVinoBackend().supports(_graph(), target)
    assert all(item.supported for item in verdicts)
    assert {item.reason for item in verdicts} == {"read by OpenVINO; no NPU on this machine to ask"}
    assert OpenVinoBackend().precisions_here(target) == target.precisions


def test_precisions_here_keep_the_targets_order_and_fp32_always_works() -> None:
    here = OpenVinoBackend().precisions_here(X86)
    assert list(here) == [precision for precision in X86.precisions if precision in here]
    assert {"int8", "fp32"} <= set(here)


def test_build_carries_interface_and_options() -> None:
    backend, graph = OpenVinoBackend(), _graph(scheme=Scheme(activations="uint8"))
    engine = backend.build(graph, X86)
    assert engine.kind == "openvino-ir"
    assert set(engine.files) == {"xml", "bin"}
    assert engine.options == backend.options(X86, "int8")
    assert (engine.inputs, engine.outputs) == (graph.inputs, graph.outputs)
    assert backend.rehearse(graph, X86) is None
