from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit.backends.base import PortableGraph
from edgekit.errors import StageError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldPreprocessing
from edgekit.passes.half import ToHalf
from edgekit.program import Program
from edgekit.targets import Portable
from tests.networks import CONTEXT, NETWORKS, folded, pictures, spec
from tests.passes.test_quantize import INT8, UINT8, quantized


def exported(item: Program, precision: str = "int8", *, dynamic_batch: bool = False) -> PortableGraph:
    return export_portable(item, portable=Portable(), precision=precision, dynamic_batch=dynamic_batch)


def run_plain(graph: PortableGraph, images: torch.Tensor) -> np.ndarray:
    """Another executor, with every optimization off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.data, options)
    return np.asarray(session.run(None, {"image": images.numpy()})[0])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["float", "uint8", "int8"])
def test_portable_graph_answers_as_the_program(name: str, form: str) -> None:
    item = folded(name)
    if form != "float":
        item = quantized(item, UINT8 if form == "uint8" else INT8)
    images = pictures(1, seed=5)
    expected = item.run(images)[0].numpy()
    actual = run_plain(exported(item), images)
    # Two executors may round a tie's neighbour otherwise once; a wrong graph is off by far more.
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < (1e-4 if form == "float" else 0.03)


def test_dynamic_batch_takes_any_number_of_images() -> None:
    item = quantized(folded("residual"))
    graph = exported(item, dynamic_batch=True)
    assert graph.inputs[0].shape == (None, 16, 16, 3)
    assert graph.outputs[0].shape == (None, 4)
    for count in (1, 5):
        images = pictures(count, seed=6)
        expected = item.run(images)[0].numpy()
        actual = run_plain(graph, images)
        assert actual.shape == expected.shape
        assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 0.03


def test_dynamic_batch_of_a_static_program_is_refused() -> None:
    item = folded("residual")
    static = replace(item, inputs=(replace(item.inputs[0], shape=(1, 16, 16, 3)),))
    with pytest.raises(StageError, match="exported for a batch of 1"):
        exported(static, dynamic_batch=True)


def test_weights_are_int8_initializers_within_their_bits() -> None:
    for rules, limit in ((UINT8, 127), (replace(UINT8, weight_bits=7), 63)):
        model = onnx.load_from_string(exported(quantized(folded("residual"), rules)).data)
        stored = [item for item in model.graph.initializer if item.name.endswith("weight_quantized")]
        assert len(stored) == 4
        for item in stored:
            values = onnx.numpy_helper.to_array(item)
            assert values.dtype == np.int8
            assert np.abs(values.astype(int)).max() == limit


def test_symmetric_graphs_hold_nothing_that_tensorrt_refuses() -> None:
    model = onnx.load_from_string(exported(quantized(folded("residual"), INT8)).data)
    zero_points = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            zero = onnx.numpy_helper.to_array(zero_points[node.input[2]])
            assert zero.dtype == np.int8
            assert not zero.any()
    (cast,) = [node for node in model.graph.node if "image" in node.input]
    assert cast.op_type == "Cast"
    assert model.ir_version == 10
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 20)]


def test_layers_bear_the_names_of_the_users_modules() -> None:
    graph = exported(quantized(folded("residual")))
    assert graph.quantized_layers == ("stem.0", "one.0", "two.0", "head.linear")
    shared = exported(quantized(folded("shared")))
    assert shared.quantized_layers == ("stem.0", "twice.0", "twice.0#2", "head.linear")


def test_bytes_depend_on_the_program_alone() -> None:
    graphs = [exported(quantized(folded("squeeze-excite"))).data for _ in range(2)]
    assert graphs[0] == graphs[1]
    text = graphs[0].decode("latin-1")
    assert "/" not in "".join(part for part in text.split("\n") if "site-packages" in part)
    assert __file__ not in text
    assert "stack_trace" not in text


def test_half_graph_is_half_throughout() -> None:
    item = folded("residual")
    graph = exported(run_passes(item, [ToHalf()], CONTEXT), "fp16")
    model = onnx.load_from_string(graph.data)
    floats = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert not [value for value in floats if value.dtype == np.float32]
    images = pictures(1)
    expected = item.run(images)[0].numpy()
    assert np.linalg.norm(run_plain(graph, images) - expected) / np.linalg.norm(expected) < 5e-3


def test_an_operator_without_onnx_form_is_a_stage_error_that_names_the_model() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    item = load_program(Odd(), task=None, example_inputs=(torch.randn(1, 4),))
    with pytest.raises(StageError, match=r"'Odd': export to ONNX failed: operator prims.bessel_j0.default"):
        export_portable(item, portable=Portable(), precision="fp32", dynamic_batch=False)


def test_sizes_are_never_read_from_the_raw_image() -> None:
    """TensorRT refuses a Shape of uint8; a recurrent layer's initial state asks for the batch."""

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.LSTM(48, 8, batch_first=True)
            self.head = torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cell(x.permute(0, 3, 1, 2).flatten(2))[0].mean(1))

    item = run_passes(load_program(Recurrent().eval(), task=spec()), [FoldPreprocessing()], CONTEXT)
    graph = exported(item, dynamic_batch=True)
    readers = [node.op_type for node in onnx.load_from_string(graph.data).graph.node if "image" in node.input]
    assert readers == ["Cast"]
    for count in (1, 3):
        images = pictures(count)
        np.testing.assert_allclose(run_plain(graph, images), item.run(images)[0].numpy(), rtol=1e-3, atol=1e-5)


class Normed(torch.nn.Module):
    """What integer kernels want spelled out: a norm over all channels and positions, a hard sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.norm = torch.nn.GroupNorm(1, 6, eps=1e-3)
        self.gate = torch.nn.Conv2d(6, 6, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(image))
        return x * torch.nn.functional.hardsigmoid(4 * self.gate(x))


def test_norms_over_all_channels_and_hard_sigmoids_are_spelled_out() -> None:
    torch.manual_seed(0)
    module = Normed().eval()
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    image = torch.randn(1, 3, 8, 8) * 3 + 1
    item = load_program(module, task=None, example_inputs=(image,))
    graph = export_portable(item, portable=Portable(), precision="fp32", dynamic_batch=False)
    kinds = {node.op_type for node in onnx.load_from_string(graph.data).graph.node}
    assert not kinds & {"InstanceNormalization", "HardSigmoid"}
    session = onnxruntime.InferenceSession(graph.data)
    answer = session.run(None, {graph.inputs[0].name: image.numpy()})[0]
    np.testing.assert_allclose(answer, module(image).detach().numpy(), atol=1e-5)
