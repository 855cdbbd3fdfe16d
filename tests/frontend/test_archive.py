"""``.pt2`` archives: every way in which one could run code, each with a payload that would only leave a marker file.

``torch.export.load`` is the control: where it alone leaves the marker, the payload is proven to be live.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from edgekit.frontend.archive import load_exported
from tests.frontend.models import IMAGE, Small, Task, seeded

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"

Records = dict[str, bytes]


class Payload:
    """Pickles into a call that creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


class WithConstant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small = seeded(Small)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(x) + torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.fixture(scope="module")
def records() -> Records:
    """The records of an archive as torch writes it, with a constant and a dynamic batch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            WithConstant().eval(), (torch.zeros(2, *IMAGE[1:]),), dynamic_shapes=({0: Dim.DYNAMIC},)
        )
        torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as archive:
        found = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return {
        name: data
        for name, data in found.items()
        if name not in (".data/version", ".data/serialization_id", "byteorder")
    }


def written(path: Path, records: Records) -> Path:
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, data in records.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return path


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edited(records: Records, name: str, edit: Callable[[Any], None]) -> Records:
    data = json.loads(records[name])
    edit(data)
    return {**records, name: json.dumps(data).encode()}


def nodes(data: Any) -> list[Any]:
    return data["graph_module"]["graph"]["nodes"]  # type: ignore[no-any-return]


def entries(data: Any) -> list[Any]:
    return list(data["config"].values())


def call(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


# --- the routes -------------------------------------------------------------------------------------------------------


def pickled_weight(records: Records, marker: Path) -> Records:
    found = edited(records, WEIGHTS, lambda data: entries(data)[0].update(use_pickle=True))
    name = f"data/weights/{entries(json.loads(records[WEIGHTS]))[0]['path_name']}"
    return {**found, name: pickled(Payload(marker))}


def pickled_constant(records: Records, marker: Path) -> Records:
    found = edited(records, CONSTANTS, lambda data: entries(data)[0].update(use_pickle=True))
    return {**found, "data/constants/tensor_0": pickled(Payload(marker))}


def opaque_constant(records: Records, marker: Path) -> Records:
    found = edited(records, CONSTANTS, lambda data: entries(data)[0].update(path_name="opaque_obj_0", use_pickle=True))
    return {**found, "data/constants/opaque_obj_0": pickle.dumps(Payload(marker))}


def custom_object(records: Records, marker: Path) -> Records:
    found = edited(records, CONSTANTS, lambda data: entries(data)[0].update(path_name="custom_obj_0", use_pickle=True))
    return {**found, "data/constants/custom_obj_0": pickled(Payload(marker))}


def unlisted_object(records: Records, marker: Path) -> Records:
    return {**records, "data/constants/custom_obj_0": pickled(Payload(marker))}


def sample_inputs(records: Records, marker: Path) -> Records:
    return {**records, SAMPLES: pickled(((Payload(marker),), {}))}


def whole_weights(records: Records, marker: Path) -> Records:
    return {**records, "data/weights/model.pt": pickled({"w": Payload(marker)})}


def whole_constants(records: Records, marker: Path) -> Records:
    return {**records, "data/constants/model.pt": pickled({"w": Payload(marker)})}


def symbolic_size(records: Records, marker: Path) -> Records:
    def edit(data: Any) -> None:
        for value in data["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = call(marker)

    return edited(records, GRAPH, edit)


def python_function(records: Records, marker: Path) -> Records:
    def edit(data: Any) -> None:
        last = nodes(data)[-1]
        last["target"] = "torch.os.mkdir"
        last["inputs"] = [{"name": "", "arg": {"as_string": str(marker)}, "kind": 1}]

    return edited(records, GRAPH, edit)


def library_loader(records: Records, marker: Path) -> Records:
    def edit(data: Any) -> None:
        last = nodes(data)[-1]
        last["target"] = "torch.ops.load_library"
        last["inputs"] = [{"name": "", "arg": {"as_string": str(marker)}, "kind": 1}]

    return edited(records, GRAPH, edit)


def operator_argument(records: Records, marker: Path) -> Records:
    return edited(
        records, GRAPH, lambda data: nodes(data)[-1]["inputs"][0].update(arg={"as_operator": "torch.os.mkdir"})
    )


def file_operator(records: Records, marker: Path) -> Records:
    def edit(data: Any) -> None:
        last = nodes(data)[-1]
        last["target"] = "torch.ops.aten.from_file.default"
        values = {"filename": {"as_string": str(marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
        last["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in values.items()]

    return edited(records, GRAPH, edit)


def custom_operator(records: Records, marker: Path) -> Records:
    return edited(records, GRAPH, lambda data: nodes(data)[-1].update(target="torch.ops.elsewhere.run.default"))


def control_flow(records: Records, marker: Path) -> Records:
    return edited(records, GRAPH, lambda data: nodes(data)[-1].update(target="torch.ops.higher_order.cond"))


def node_name(records: Records, marker: Path) -> Records:
    text = json.dumps(json.loads(records[GRAPH])["graph_module"]["graph"]["outputs"][0]["as_tensor"]["name"])
    name = json.dumps(f"torch.__dict__[{call(marker)}]")
    return {**records, GRAPH: records[GRAPH].replace(text.encode(), name.encode())}


def input_name(records: Records, marker: Path) -> Records:
    return {**records, GRAPH: records[GRAPH].replace(b'"x"', json.dumps(f"x=[{call(marker)}][0]").encode())}


def argument_name(records: Records, marker: Path) -> Records:
    def edit(data: Any) -> None:
        data["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [f"x=[{call(marker)}]"]

    return edited(records, GRAPH, edit)


def parameter_name(records: Records, marker: Path) -> Records:
    # Without a dot, which torch would split it at.
    name = f'", open({str(marker)!r}, "w")) or getattr(self, "'
    found = {**records}
    for record in (GRAPH, WEIGHTS):
        found[record] = found[record].replace(b'"small.fc.bias"', json.dumps(name).encode())
    return found


def imported_by_structure(module: str, kind: str, context: Any) -> Callable[[Records, Path], Records]:
    def route(records: Records, marker: Path) -> Records:
        (marker.parent / f"{module}.py").write_text(call(marker))

        def edit(data: Any) -> None:
            signature = data["graph_module"]["module_call_graph"][0]["signature"]
            version, spec = json.loads(signature["out_spec"])
            leaf = {"type": None, "context": None, "children_spec": []}
            spec = {"type": kind, "context": context, "children_spec": [leaf]}
            signature["out_spec"] = json.dumps([version, spec])

        return edited(records, GRAPH, edit)

    return route


DEFAULTDICT = imported_by_structure(
    "leaves_marker_one",
    "collections.defaultdict",
    {"default_factory_module": "leaves_marker_one", "default_factory_name": "x", "dict_context": ["y"]},
)
ENUM = imported_by_structure(
    "leaves_marker_two", "builtins.dict", json.dumps([{"__enum__": 1, "fqn": "leaves_marker_two:E", "name": "A"}])
)


def compiled_library(records: Records, marker: Path) -> Records:
    return {**records, "data/aotinductor/model/wrapper.so": b"\x7fELF"}


def second_model(records: Records, marker: Path) -> Records:
    return {**records, "models/other.json": records[GRAPH]}


def unknown_record(records: Records, marker: Path) -> Records:
    return {**records, "data/plugins/setup.py": call(marker).encode()}


# Route, words of the refusal, and whether torch.export.load alone (or its module) runs the payload.
ROUTES: list[tuple[Callable[[Records, Path], Records], str, bool]] = [
    (pickled_weight, "pickled objects", True),
    (pickled_constant, "pickled objects", True),
    (opaque_constant, "opaque", True),
    (custom_object, "custom", False),
    (unlisted_object, "custom", False),
    (sample_inputs, "pickled objects", True),
    (whole_weights, "pickled objects", True),
    (whole_constants, "pickled objects", True),
    (symbolic_size, "more than arithmetic", True),
    (python_function, "Python function", False),
    (library_loader, "Python function", False),
    (operator_argument, "Python function", False),
    (file_operator, "outside the graph", True),
    (custom_operator, "custom operator", False),
    (control_flow, "control flow", False),
    (node_name, "identifier", False),
    (input_name, "identifier", True),
    (argument_name, "plain name", False),
    (parameter_name, "plain name", True),
    (DEFAULTDICT, "imports a module", True),
    (ENUM, "imports a module", True),
    (compiled_library, "compiled library", False),
    (second_model, "second model", False),
    (unknown_record, "unknown record", False),
]
NAMES = [getattr(route, "__name__", "") for route, _, _ in ROUTES]
NAMES[19:21] = ["structure_defaultdict", "structure_enum"]


@pytest.mark.parametrize(("route", "words", "live"), ROUTES, ids=NAMES)
def test_route_is_refused_before_it_runs(
    route: Callable[[Records, Path], Records],
    words: str,
    live: bool,
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    marker = tmp_path / "marker"
    path = written(tmp_path / "model.pt2", route(records, marker))
    with pytest.raises(ModelError, match=words) as caught:
        load_program(path, task=Task())
    assert caught.value.hint
    assert not marker.exists()
    if live:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                torch.export.load(str(path)).module()(torch.zeros(2, *IMAGE[1:]))
            except Exception as error:  # noqa: BLE001 - the payload has run by then, which is all that counts
                print(type(error))  # noqa: T201
        assert marker.exists(), "the payload is dead: this test proves nothing"


def test_clean_archive_loads_and_answers(records: Records, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt2", records)
    program = load_program(path, task=Task())
    x = torch.randn(3, *IMAGE[1:])
    with torch.no_grad():
        torch.testing.assert_close(program.run(x)[0], WithConstant().eval()(x))
    assert program.dynamic_batch
    assert program.inputs[0].name == "image"
    assert {name for name, _ in program.graph.named_parameters()} >= {"small.conv.weight", "small.fc.bias"}


def test_guards_do_not_reach_torch_and_stack_traces_run_nothing(records: Records, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def edit(data: Any) -> None:
        data["guards_code"] = [call(marker)]
        for number, node in enumerate(nodes(data)):
            code = f"x\r{call(marker)}\x0c\n{call(marker)}"
            trace = f"\n{call(marker)}\n" if number == 0 else f'File "a\n{call(marker)}", line 1, in f\n    {code}'
            node["metadata"] = {"stack_trace": trace, "nn_module_stack": call(marker), "custom": "{"}

    path = written(tmp_path / "model.pt2", edited(records, GRAPH, edit))
    program = load_program(path, task=Task())
    exported = load_exported(path, old=False).exported
    # The form in which torch writes stack traces into source, as comments.
    source = exported.graph.python_code("self", verbose=True).src
    assert "# File: " in source
    assert all(call(marker) not in line.partition("#")[0] for line in source.splitlines())
    exec(compile(source, "graph", "exec"), dict(exported.graph.python_code("self").globals))
    assert not marker.exists()
    assert all("\n" not in node.meta.get("source", "") for node in program.graph.graph.nodes)


def test_extra_files_are_left_out_and_recorded(records: Records, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt2", {**records, "extra/notes.txt": b"hello"})
    skipped = load_program(path, task=Task()).history[0].skipped
    assert "extra/notes.txt" in skipped[0].what


def test_exported_on_an_accelerator_is_moved_to_the_cpu(records: Records, tmp_path: Path) -> None:
    on_gpu = {
        name: data.replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
        for name, data in records.items()
    }
    assert on_gpu[GRAPH] != records[GRAPH]
    program = load_program(written(tmp_path / "model.pt2", on_gpu), task=Task())
    assert "moved to the CPU" in program.history[0].skipped[0].why
    assert all(value.device.type == "cpu" for value in program.graph.parameters())


def zipped(path: Path, records: Records, *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [("../outside", "plain relative name"), ("a\\b", "plain relative name"), ("x/../../y", "plain relative name")],
)
def test_hostile_names_are_refused(name: str, words: str, records: Records, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        load_exported(zipped(tmp_path / "model.pt2", {**records, name: b""}), old=False)


def test_doubled_record_is_refused(records: Records, tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt2", records)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"archive/{GRAPH}", records[GRAPH])
    with pytest.raises(ModelError, match="stands twice"):
        load_exported(path, old=False)


def test_compressed_record_is_refused(records: Records, tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt2", records, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed"):
        load_exported(path, old=False)


def test_second_folder_is_refused(records: Records, tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt2", records)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"other/{GRAPH}", records[GRAPH])
    with pytest.raises(ModelError, match="one top folder"):
        load_exported(path, old=False)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_cut_archive_is_an_error(keep: float, records: Records, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt2", records)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ModelError, match="damaged"):
        load_program(path, task=Task())


def test_missing_weight_is_an_error(records: Records, tmp_path: Path) -> None:
    rest = {name: data for name, data in records.items() if name != "data/weights/weight_0"}
    with pytest.raises(ModelError, match="no record data/weights/weight_0"):
        load_program(written(tmp_path / "model.pt2", rest), task=Task())


def test_other_schema_version_is_an_error(records: Records, tmp_path: Path) -> None:
    newer = edited(records, GRAPH, lambda data: data["schema_version"].update(major=99))
    with pytest.raises(ModelError, match="cannot read this archive") as caught:
        load_program(written(tmp_path / "model.pt2", newer), task=Task())
    assert "export again" in str(caught.value)


# --- the layout of torch 2.7 and older --------------------------------------------------------------------------------


def old_layout(path: Path, **changed: bytes) -> Path:
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        parts = serialize(torch.export.export(seeded(Small).eval(), (torch.zeros(IMAGE),)))
    records = {
        "version": ".".join(map(str, SCHEMA_VERSION)).encode(),
        "serialized_exported_program.json": parts.exported_program,
        "serialized_state_dict.pt": parts.state_dict,
        "serialized_constants.pt": parts.constants,
        "serialized_example_inputs.pt": parts.example_inputs,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, changed.get(name.partition(".")[0], data))
    return path


def test_old_layout_loads(tmp_path: Path) -> None:
    program = load_program(old_layout(tmp_path / "old.pt2"), task=Task())
    x = torch.randn(IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(program.run(x)[0], seeded(Small).eval()(x))


@pytest.mark.parametrize("part", ["serialized_state_dict", "serialized_constants", "serialized_example_inputs"])
def test_old_layout_with_pickled_objects_is_refused(part: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = old_layout(tmp_path / "old.pt2", **{part: pickled({"w": Payload(marker)})})
    with pytest.raises(ModelError, match="pickled objects"):
        load_program(path, task=Task())
    assert not marker.exists()
