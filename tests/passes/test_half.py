"""Half precision: float programs throughout, quantized ones all but what quantizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import fx

from edgekit.backends.tensorrt.support import graph_verdicts
from edgekit.errors import UserError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.aten import COMPUTE, is_call, read_tensor
from edgekit.passes.half import ToHalf
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program
from edgekit.targets import Portable
from edgekit.tensorspec import TensorSpec
from tests.networks import CONTEXT, NETWORKS, folded, pictures
from tests.passes.test_quantize import INT8, quantized, sqnr_db

_CAST = torch.ops.aten.to.dtype


def halved(item: Program) -> Program:
    return run_passes(item, [ToHalf()], CONTEXT)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_stays_close_and_keeps_the_interface(name: str) -> None:
    item = folded(name)
    result = halved(item)
    images = pictures(8)
    reference, actual = item.run(images)[0], result.run(images)[0]
    assert actual.dtype == torch.float32
    assert (result.inputs, result.outputs) == (item.inputs, item.outputs)
    assert (actual - reference).norm() / reference.norm() < 5e-3
    assert all(value.dtype == torch.float16 for value in result.graph.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantized_program_in_half_answers_as_before(name: str) -> None:
    item = quantized(folded(name), INT8)
    images = pictures(16, seed=99)
    # A value near the middle of two levels may be rounded the other way.
    assert sqnr_db(item.run(images)[0], halved(item).run(images)[0]) > 30


@pytest.mark.parametrize("name", NETWORKS)
def test_what_quantizes_stays_in_float32_and_the_rest_is_half(name: str) -> None:
    result = halved(quantized(folded(name), INT8))
    seen: dict[fx.Node, Any] = {}

    class Watch(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            seen[node] = super().run_node(node)
            return seen[node]

    Watch(result.graph).run(pictures(2))
    pairs = [node for node in result.graph.graph.nodes if is_call(node, {QDQ})]
    layers = [node for node in result.graph.graph.nodes if is_call(node, COMPUTE)]
    assert pairs
    assert layers
    for node in pairs:
        assert [seen[item].dtype for item in node.all_input_nodes[:2]] == [torch.float32] * 2
    for node in layers:
        assert {seen[item].dtype for item in node.all_input_nodes} == {torch.float16}


def test_scales_that_half_cannot_hold_are_exact() -> None:
    item = quantized(folded("residual"), INT8)
    kept = {name: tensor.clone() for name, tensor in item.graph.named_buffers() if "scale" in name}
    result = dict(halved(item).graph.named_buffers())
    assert kept
    assert all(torch.equal(result[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_no_cast_undoes_the_one_before_it(name: str) -> None:
    graph = halved(quantized(folded(name), INT8)).graph.graph
    casts = [node for node in graph.nodes if is_call(node, {_CAST}) and is_call(node.args[0], {_CAST})]
    # float32 to half to float32 loses digits for nothing.
    assert [node for node in casts if node.args[1] == torch.float32] == []


def test_a_weight_that_is_read_in_float_too_is_rounded_from_float32() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(8, 8) * 1e-3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.weight)

    graph = fx.symbolic_trace(Tied())
    calls = graph.graph
    weight = next(node for node in calls.nodes if node.op == "get_attr")
    layer = next(node for node in calls.nodes if node.op == "call_function")
    graph.register_buffer("step", torch.tensor(1e-5))
    graph.register_buffer("zero", torch.tensor(0, dtype=torch.int8))
    with calls.inserting_before(layer):
        step, zero = calls.get_attr("step"), calls.get_attr("zero")
        pair = calls.call_function(QDQ, (weight, step, zero, -1, -127, 127))
    layer.update_arg(1, pair)
    output = next(node for node in calls.nodes if node.op == "output")
    with calls.inserting_before(output):
        both = calls.call_function(torch.ops.aten.add.Tensor, (layer, weight))
    output.args = ((both,),)
    graph.recompile()
    spec = TensorSpec(name="x", dtype="float32", shape=(8, 8))
    item = Program(name="tied", graph=graph, inputs=(spec,), outputs=(spec,), task=None)
    result = halved(item)
    pair = next(node for node in result.graph.graph.nodes if is_call(node, {QDQ}))
    assert read_tensor(result.graph, pair.args[0]).dtype == torch.float32
    x = torch.randn(8, 8)
    assert torch.allclose(result.run(x)[0], item.run(x)[0], atol=2e-3)


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    item = folded("residual")
    with torch.no_grad():
        next(iter(item.graph.parameters())).fill_(1e5)
    with pytest.raises(UserError, match="beyond float16's largest value"):
        halved(item)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("made", [lambda item: item, lambda item: quantized(item, INT8)], ids=["float", "int8"])
def test_the_exported_graph_says_so_and_keeps_tensorrts_rules(name: str, made: Callable[[Program], Program]) -> None:
    item = halved(made(folded(name)))
    portable = Portable(half="graph")
    graph = export_portable(item, portable=portable, precision="int8", dynamic_batch=False)
    assert [verdict for verdict in graph_verdicts(graph, portable, (10, 3)) if not verdict.supported] == []
    model = onnx.load_from_string(graph.data)
    scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert all(values[scale].dtype == np.float32 for scale in scales)
    assert [key for key, value in values.items() if value.dtype == np.float32 and key not in scales] == []
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.data, options)
    images = pictures(1)
    expected = item.run(images)[0].numpy()
    actual = np.asarray(session.run(None, {"image": images.numpy()})[0])
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 2e-2


class HardActivations(torch.nn.Module):
    """A gate of a hard sigmoid and a hard swish, as MobileNetV3 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.hardswish(self.conv(image))
        return (x * torch.nn.functional.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))).mean((2, 3))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_hard_sigmoids_are_written_in_half(dynamic_batch: bool) -> None:
    module = HardActivations().eval()
    item = halved(load_program(module, task=None, example_inputs=(torch.randn(2, 3, 16, 16),)))
    graph = export_portable(item, portable=Portable(half="graph"), precision="fp16", dynamic_batch=dynamic_batch)
    assert [verdict for verdict in graph_verdicts(graph, Portable(), (10, 3)) if not verdict.supported] == []
    x = torch.randn(1, 3, 16, 16)
    session = onnxruntime.InferenceSession(graph.data)
    actual = session.run(None, {graph.inputs[0].name: x.numpy()})[0]
    np.testing.assert_allclose(actual, module(x).detach().numpy(), atol=5e-3)
