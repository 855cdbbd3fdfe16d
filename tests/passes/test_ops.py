from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.passes.quantize.ops import dequantize, qdq


def onnx_qdq(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int) -> np.ndarray:
    """The standard's own answer, from another executor."""
    attributes = {} if axis < 0 else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero_point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (result,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    return np.asarray(result)


@pytest.mark.parametrize(("dtype", "qmin", "qmax"), [(torch.uint8, 0, 255), (torch.int8, -128, 127)])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_agrees_with_onnx_bit_by_bit(dtype: torch.dtype, qmin: int, qmax: int, axis: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((6, 5, 40), generator=generator) * 3
    x[0, 0, :4] = torch.tensor([0.05, 0.15, 0.25, -0.05])  # ties at scale 0.1
    channels = () if axis < 0 else (x.shape[axis],)
    scale = torch.full(channels, 0.1) if axis < 0 else 0.01 + torch.rand(channels, generator=generator)
    zero = torch.full(channels, 7 if dtype == torch.uint8 else 0, dtype=dtype)
    expected = onnx_qdq(x.numpy(), scale.numpy(), zero.numpy(), axis)
    assert np.array_equal(qdq(x, scale, zero, axis, qmin, qmax).numpy(), expected)


def test_gradient_passes_inside_the_range_and_stops_where_clipped() -> None:
    x = torch.tensor([-100.0, -1.0, 0.3, 1.0, 100.0], requires_grad=True)
    y = qdq(x, torch.tensor(0.01), torch.tensor(128, dtype=torch.uint8), -1, 0, 255)
    (y * torch.tensor([1.0, 2, 3, 4, 5])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 0]


def test_passes_torchs_own_check_of_custom_operators() -> None:
    arguments = (
        torch.randn(3, 4, requires_grad=True),
        torch.tensor(0.1),
        torch.tensor(3, dtype=torch.uint8),
        -1,
        0,
        255,
    )
    torch.library.opcheck(torch.ops.edgekit.qdq.default, arguments)
    stored = (torch.ones(3, 4, dtype=torch.int8), torch.rand(3), torch.zeros(3, dtype=torch.int8), 0)
    torch.library.opcheck(torch.ops.edgekit.dequantize.default, stored)


def test_dequantize_multiplies_by_the_channels_scale() -> None:
    q = torch.tensor([[1, -2], [3, 4]], dtype=torch.int8)
    result = dequantize(q, torch.tensor([0.5, 10.0]), torch.zeros(2, dtype=torch.int8), 0)
    assert result.tolist() == [[0.5, -1.0], [30.0, 40.0]]
