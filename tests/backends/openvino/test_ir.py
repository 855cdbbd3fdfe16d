from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.backends.openvino.ir import emit_ir
from edgekit.errors import StageError
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import FLOAT, Scheme

openvino = pytest.importorskip("openvino")

UINT8 = Scheme(activations="uint8")


def _digests(files: dict[str, bytes]) -> dict[str, str]:
    return {role: hashlib.sha256(content).hexdigest() for role, content in files.items()}


def _conv_graph(channels: int, node_name: str = "conv") -> bytes:
    weight = np.random.default_rng(0).integers(-127, 128, (channels, channels, 3, 3)).astype(np.int8)
    constants = [
        numpy_helper.from_array(weight, "w.q"),
        numpy_helper.from_array(np.full(channels, 0.01, np.float32), "w.scale"),
        numpy_helper.from_array(np.zeros(channels, np.int8), "w.zero"),
        numpy_helper.from_array(np.ones(channels, np.float32), "b"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w"], axis=0, name="w.dequantize"),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name=node_name),
    ]
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 6, 6]),
    ]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


def test_the_bytes_are_the_same_after_other_models_and_in_another_process(tmp_path: Path) -> None:
    graphs = [golden.portable(scheme).data for golden in GOLDENS for scheme in (FLOAT, UINT8)]
    first = [_digests(emit_ir(data)) for data in graphs]
    again = [_digests(emit_ir(data)) for data in reversed(graphs)]
    assert again == list(reversed(first))

    for index, data in enumerate(graphs):
        (tmp_path / f"{index}.onnx").write_bytes(data)
    code = (
        "import sys, json, hashlib; from pathlib import Path; from edgekit.backends.openvino.ir import emit_ir;"
        "files = [emit_ir(Path(sys.argv[1], f'{i}.onnx').read_bytes()) for i in reversed(range(int(sys.argv[2])))];"
        "print(json.dumps([{k: hashlib.sha256(v).hexdigest() for k, v in f.items()} for f in files]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(len(graphs))]
    child = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert json.loads(child.stdout) == list(reversed(first))


def test_different_graphs_give_different_bytes() -> None:
    assert emit_ir(_conv_graph(8)) != emit_ir(_conv_graph(8, "other"))


def test_nothing_of_this_machine_or_moment_is_inside() -> None:
    xml = emit_ir(_conv_graph(8))["xml"].decode()
    for foreign in ("/tmp", "edgekit-ir", openvino.__version__, "conversion_parameters", "fused_names"):
        assert foreign not in xml


def test_int8_weights_stay_one_byte_each() -> None:
    weights = 64 * 64 * 9
    size = len(emit_ir(_conv_graph(64))["bin"])
    assert weights <= size < 1.05 * weights


def test_float_weights_are_not_compressed() -> None:
    golden = next(item for item in GOLDENS if item.name == "conv_relu")
    graph = golden.portable(FLOAT)
    stored = sum(numpy_helper.to_array(item).nbytes for item in onnx.load_from_string(graph.data).graph.initializer)
    assert len(emit_ir(graph.data)["bin"]) >= 0.95 * stored
    assert b'element_type="f16"' not in emit_ir(graph.data)["xml"]


def test_interface_and_node_names_are_kept() -> None:
    graph = next(item for item in GOLDENS if item.name == "two_outputs").portable(UINT8)
    files = emit_ir(graph.data)
    model = openvino.Core().read_model(files["xml"], files["bin"])
    assert [port.get_any_name() for port in model.inputs] == ["image"]
    assert [port.get_any_name() for port in model.outputs] == [spec.name for spec in graph.outputs]
    names = {operation.get_friendly_name(): operation.get_type_name() for operation in model.get_ops()}
    assert names["stem"] == "Convolution"
    assert names["stem/Bias"] == "Add"
    assert names["logits"] == "Convolution"


def test_a_graph_that_openvino_cannot_read_names_the_operator() -> None:
    model = onnx.load_from_string(_conv_graph(4))
    model.graph.node[1].op_type = "Marvellous"
    with pytest.raises(StageError, match="no translation for operator Marvellous") as caught:
        emit_ir(model.SerializeToString())
    assert caught.value.exit_code == 4
