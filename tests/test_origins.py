"""Messages about an exported node say where in the model it comes from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

import edgekit
from edgekit.backends.base import Origin, PortableGraph
from edgekit.errors import StageError
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.origins import read_origins
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.half import ToHalf
from edgekit.targets import Portable
from tests.networks import CONTEXT, NETWORKS, folded
from tests.passes.test_quantize import INT8, quantized

FILE = Path(__file__).name


class Determinant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.det(x)


class Scored(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        self.score = Determinant()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.stem(x)) * 2


def exported(module: torch.nn.Module) -> PortableGraph:
    program = load_program(module.eval(), task=None, example_inputs=(torch.randn(2, 1, 8, 8),))
    program = run_passes(program, [FoldBatchNorm()], CONTEXT)
    return export_portable(program, portable=Portable(), precision="fp32", dynamic_batch=False)


def test_a_node_knows_its_module_and_its_line() -> None:
    graph = exported(Scored())
    model = onnx.load_from_string(graph.data)
    (node,) = [item for item in model.graph.node if item.op_type == "Det"]
    code = "return torch.linalg.det(x)"
    number = next(i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if code in line)
    assert graph.origins[node.name] == Origin(module="score", source=f"{FILE}, line {number}: {code}")
    assert graph.described(node.name, "Det") == f"Det '{node.name}' of module 'score' ({FILE}, line {number}: {code})"


def test_an_operator_that_a_target_lacks_is_named_with_module_and_line(tmp_path: Path) -> None:
    """As a user sees it, in half precision, whose casts the exporter spells otherwise."""

    class Net(Scored):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.cat([x, x], 2)[:, :, :8])

    with pytest.raises(StageError, match="cannot run a node of the fp16 graph: Det ") as caught:
        edgekit.compile(
            Net().eval(),
            example_inputs=(torch.randn(2, 1, 8, 8),),
            target="jetson",
            precision="fp16",
            output=tmp_path / "m.edge",
        )
    assert f"of module 'score' ({FILE}, line " in caught.value.message
    assert "return torch.linalg.det(x)): TensorRT 10.3 has no Det" in caught.value.message
    assert caught.value.hint is not None
    assert not (tmp_path / "m.edge").exists()


class Dropping(torch.nn.Module):
    """As a model that a user saves: layers of torch's, no gradients in a part, a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Scored()
        self.last = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = x * 2
        return self.last(torch.relu(self.last(self.body(x))))


@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "one batch"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_saved_archive_tells_the_same_as_its_module(tmp_path: Path, precision: str, dynamic: bool) -> None:
    module = Dropping().eval()
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    path = tmp_path / "saved.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=shapes), path)
    found = []
    for model in (module, path):
        program = load_program(model, task=None, example_inputs=(torch.randn(2, 1, 8, 8),))
        program = run_passes(program, [FoldBatchNorm(), *([ToHalf()] if precision == "fp16" else [])], CONTEXT)
        portable = Portable(half="graph" if precision == "fp16" else "option")
        graph = export_portable(program, portable=portable, precision=precision, dynamic_batch=False)
        found.append(dict(graph.origins))
    # Inside a part without gradients torch itself loses the file's words; then there are none, and no wrong ones.
    lost = {name for name, origin in found[0].items() if "x = x * 2" in origin.source}
    assert len(lost) == 1
    assert found[1] == {name: origin for name, origin in found[0].items() if name not in lost}
    assert {"body.score", "body.stem.0", "last"} <= {origin.module for origin in found[1].values()}
    assert any("return torch.linalg.det(x)" in origin.source for origin in found[1].values())


def test_an_operator_of_an_archive_that_a_target_lacks_is_named_with_module_and_line(tmp_path: Path) -> None:
    path = tmp_path / "saved.pt2"
    torch.export.save(torch.export.export(Scored().eval(), (torch.zeros(2, 1, 8, 8),)), path)
    with pytest.raises(StageError, match="cannot run a node of the fp16 graph: Det ") as caught:
        edgekit.compile(path, target="jetson", precision="fp16", output=tmp_path / "m.edge")
    assert f"of module 'score' ({FILE}, line " in caught.value.message
    assert "return torch.linalg.det(x)): TensorRT 10.3 has no Det" in caught.value.message
    assert str(Path(__file__).parent) not in caught.value.message


def test_a_folded_layer_keeps_its_origin_under_its_new_name() -> None:
    origin = exported(Scored()).origins["stem.0"]
    assert origin.module == "stem.0"
    # The line that calls a layer of torch's is the model's own, not torch's.
    assert origin.source.startswith(f"{FILE}, line ")


def test_the_file_itself_tells_nothing_of_this_machine() -> None:
    graph = exported(Scored())
    assert str(Path(__file__).parent).encode() not in graph.data
    assert FILE.encode() not in graph.data


def test_a_node_of_unknown_origin_is_described_without() -> None:
    graph = PortableGraph(data=b"", precision="fp32", inputs=(), outputs=())
    assert graph.described("node_1", "Det") == "Det 'node_1'"


@pytest.mark.parametrize("scopes", ["", "no list", "[]", "['only itself']"])
def test_metadata_of_another_form_tell_nothing(scopes: str) -> None:
    node = onnx.helper.make_node("Det", ["x"], ["y"], name="n")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    graph = onnx.helper.make_graph([node], "g", [], [])
    assert read_origins(onnx.helper.make_model(graph)) == {}


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_layers_with_fp16_around_them_know_where_they_come_from(name: str, dynamic_batch: bool) -> None:
    program = run_passes(quantized(folded(name), INT8), [ToHalf()], CONTEXT)
    graph = export_portable(program, portable=Portable(half="graph"), precision="int8", dynamic_batch=dynamic_batch)
    assert graph.quantized_layers
    for layer in graph.quantized_layers:
        assert graph.origins[layer].source.startswith("networks.py, line ")
