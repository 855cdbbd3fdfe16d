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
    learned = (arguments[0], torch.tensor(0.1, requires_grad=True), *arguments[2:])
    torch.library.opcheck(torch.ops.edgekit.qdq.default, learned)
    stored = (torch.ones(3, 4, dtype=torch.int8), torch.rand(3), torch.zeros(3, dtype=torch.int8), 0)
    torch.library.opcheck(torch.ops.edgekit.dequantize.default, stored)


def test_dequantize_multiplies_by_the_channels_scale() -> None:
    q = torch.tensor([[1, -2], [3, 4]], dtype=torch.int8)
    result = dequantize(q, torch.tensor([0.5, 10.0]), torch.zeros(2, dtype=torch.int8), 0)
    assert result.tolist() == [[0.5, -1.0], [30.0, 40.0]]


def _straight(
    x: torch.Tensor, scale: torch.Tensor, zero: float, qmin: int, qmax: int, at: torch.Tensor
) -> torch.Tensor:
    """The operator, with what rounding adds at the scale ``at`` held: what the straight-through gradient is of."""
    added = (x / at).round() - x / at
    inside = ((x / at).round() + zero >= qmin) & ((x / at).round() + zero <= qmax)
    level = torch.where(inside, x / scale + added, (x / at + zero).clamp(qmin, qmax) - zero)
    return level * scale


@pytest.mark.parametrize(
    ("dtype", "zero", "qmin", "qmax"),
    [(torch.uint8, 0, 0, 255), (torch.uint8, 100, 0, 255), (torch.int8, 0, -128, 127), (torch.int8, 0, -7, 7)],
    ids=["unsigned", "asymmetric", "signed", "few levels"],
)
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_gradient_of_the_scale_is_the_difference_quotient(
    dtype: torch.dtype, zero: int, qmin: int, qmax: int, axis: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((4, 5, 40), generator=generator) * 3
    weights = torch.randn(x.shape, generator=generator)
    channels = () if axis < 0 else (x.shape[axis],)
    # Some values are clipped on either side that the grid has, most are not.
    scale = (3 / (qmax - qmin) * (1 + torch.rand(channels, generator=generator))).requires_grad_()
    zeros = torch.full(channels, zero, dtype=dtype)
    y = qdq(x, scale, zeros, axis, qmin, qmax)
    shape = [1, 1, 1]
    if axis >= 0:
        shape[axis] = -1
    at = scale.detach().double().reshape(shape)
    level = (y.detach() / at + zero).round()
    for end in (qmin, qmax):
        assert 0.01 < float((level == end).double().mean()) < 0.9
    (y * weights).sum().backward()
    assert scale.grad is not None
    wide, step = x.double(), 1e-6 * at
    ends = [_straight(wide, at + sign * step, zero, qmin, qmax, at) * weights for sign in (1, -1)]
    rest = [dim for dim in range(3) if dim != axis]
    expected = ((ends[0] - ends[1]) / (2 * step)).sum(rest)
    assert torch.allclose(scale.grad.double(), expected.reshape(channels), rtol=1e-3, atol=2e-2)


def test_gradient_of_the_scale_by_hand() -> None:
    # Esser et al. 2020, equation 3: what rounding added, or the last level.
    x = torch.tensor([-9.0, 0.3, 0.7, 9.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    y = qdq(x, scale, torch.tensor(0, dtype=torch.int8), -1, -7, 7)
    for index, expected in enumerate((-7, -0.3, 0.3, 7)):
        (gradient,) = torch.autograd.grad(y[index], scale, retain_graph=True)
        assert float(gradient) == pytest.approx(expected, abs=1e-6)
    (y * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_do_not_depend_on_the_memory_layout(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(2)
    x, weights = (torch.randn((2, 3, 5, 4), generator=generator) for _ in range(2))
    arguments = torch.tensor(5, dtype=torch.uint8), -1, 0, 255
    found = []
    for moved in (x, x.contiguous(memory_format=layout)):
        value, scale = moved.clone().requires_grad_(), torch.tensor(0.008, requires_grad=True)
        (qdq(value, scale, *arguments) * weights).sum().backward()
        found.append((value.grad, scale.grad))
    (first, of_first), (second, of_second) = found
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert torch.allclose(of_first, of_second, rtol=1e-4)
