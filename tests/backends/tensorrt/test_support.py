from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgekit.backends.base import PortableGraph, Verdict
from edgekit.backends.tensorrt.support import graph_verdicts
from edgekit.targets import Portable
from tests.backends.tensorrt.graphs import graph_of, node


def judge(graph: PortableGraph, release: tuple[int, int] = (10, 3)) -> list[Verdict]:
    return [item for item in graph_verdicts(graph, Portable(), release) if not item.supported]


def quantized(zero: Any, scale: Any = 0.1) -> PortableGraph:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "d")]
    return graph_of(nodes, constants={"s": np.float32(scale), "z": zero})


def test_symmetric_int8_is_taken_and_every_node_has_a_verdict() -> None:
    verdicts = graph_verdicts(quantized(np.int8(0)), Portable(), (10, 3))
    assert [(item.node, item.operator, item.supported) for item in verdicts] == [
        ("q", "QuantizeLinear", True),
        ("d", "DequantizeLinear", True),
    ]


def test_uint8_quantization_is_refused_because_the_library_would_reinterpret_it() -> None:
    refused = judge(quantized(np.uint8(128)))
    assert [item.node for item in refused] == ["q", "d"]
    assert "quantized type uint8" in refused[0].reason


def test_a_zero_point_other_than_zero_is_refused() -> None:
    assert judge(quantized(np.int8(3)))[0].reason == "the zero-point must be 0: TensorRT quantizes symmetrically"


def test_activations_have_one_scale() -> None:
    refused = judge(quantized(np.zeros(3, np.int8), [0.1, 0.1, 0.1]))
    assert [(item.node, item.reason) for item in refused] == [
        ("q", "activations have one scale per tensor, found one per channel")
    ]


def test_a_missing_zero_point_means_uint8() -> None:
    graph = graph_of(
        [node("QuantizeLinear", ["x", "s"], "q"), node("DequantizeLinear", ["q", "s"], "d")],
        constants={"s": np.float32(0.1)},
    )
    assert "without a zero-point" in judge(graph)[0].reason


def test_uint8_goes_into_a_cast_and_nowhere_else() -> None:
    cast = node("Cast", ["x"], "cast", {"to": TensorProto.FLOAT})
    good = graph_of([cast, node("Relu", ["cast"], "y")], input_type=TensorProto.UINT8)
    assert judge(good) == []
    transposed = node("Transpose", ["x"], "t", {"perm": [0, 2, 3, 1]})
    bad = graph_of([transposed, node("Cast", ["t"], "y", {"to": TensorProto.FLOAT})], input_type=TensorProto.UINT8)
    assert [item.node for item in judge(bad)] == ["t"]
    assert "uint8" in judge(bad)[0].reason


@pytest.mark.parametrize("type_", [TensorProto.UINT16, TensorProto.INT8, TensorProto.DOUBLE])
def test_foreign_input_types_are_named(type_: int) -> None:
    graph = graph_of([node("Cast", ["x"], "y", {"to": TensorProto.FLOAT})], input_type=type_)
    refused = judge(graph)
    assert (refused[0].node, refused[0].operator) == ("x", "Input")
    assert TensorProto.DataType.Name(type_).lower() in refused[0].reason


def test_an_operator_of_a_later_release_is_refused_and_named_with_its_release() -> None:
    graph = graph_of(
        [node("DeformConv", ["x", "w", "o"], "y", {"kernel_shape": [1, 1]})],
        constants={"w": np.ones((3, 3, 1, 1), np.float32), "o": np.zeros((1, 2, 8, 8), np.float32)},
    )
    assert judge(graph, (10, 1)) == []
    assert judge(graph, (10, 0))[0].reason == "DeformConv came with TensorRT 10.1, the target has 10.0"


def test_an_operator_that_tensorrt_lacks_and_one_of_another_domain() -> None:
    assert judge(graph_of([node("Det", ["x"], "y")]))[0].reason == "TensorRT 10.3 has no Det"
    foreign = node("Relu", ["x"], "y")
    foreign.domain = "my.domain"
    assert judge(graph_of([foreign], domains=["my.domain"]))[0].reason == "an operator of domain 'my.domain'"


def test_integer_softmax_is_refused_and_integer_addition_is_not() -> None:
    number = TensorProto.INT64
    assert judge(graph_of([node("Add", ["x", "x"], "y")], input_type=number, output_type=number)) == []
    refused = judge(graph_of([node("Tanh", ["x"], "y")], input_type=number, output_type=number))
    assert refused[0].reason == "type int64: Tanh takes float, float16, bfloat16"


def test_newer_formats_are_refused() -> None:
    reasons = [item.reason for item in judge(graph_of([node("Relu", ["x"], "y")], opset=21, ir_version=11))]
    assert reasons == ["opset 21, at most 20 is taken", "ONNX IR version 11, at most 10 is taken"]


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [
        ("Resize", {"mode": "cubic"}, "mode = cubic"),
        ("Resize", {"mode": "linear", "antialias": 1}, "antialias = 1"),
        ("Resize", {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilated pooling"),
    ],
)
def test_refused_attributes_are_named(operator: str, attributes: Mapping[str, Any], reason: str) -> None:
    inputs = ["x", "", "scales"] if operator == "Resize" else ["x"]
    graph = graph_of(
        [node(operator, inputs, "y", attributes)], constants={"scales": np.array([1, 1, 2, 2], np.float32)}
    )
    assert [item.node for item in judge(graph)] == ["y"]
    assert reason in judge(graph)[0].reason


def test_one_dimensional_pooling_is_refused() -> None:
    graph = graph_of([node("MaxPool", ["x"], "y", {"kernel_shape": [2]})], shape=(1, 3, 8))
    assert judge(graph)[0].reason == "pooling over 2 or 3 dimensions only, found 1"
