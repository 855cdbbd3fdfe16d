"""TorchScript: converted where torch can, refused where its code leaves plain operators."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from tests.frontend.models import IMAGE, Attention, OptionA, Small, Task, seeded
from tests.frontend.test_export_module import operators

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def saved(path: Path, module: nn.Module, *, trace: bool) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.jit.trace(module, torch.zeros(IMAGE)) if trace else torch.jit.script(module)
        torch.jit.save(made, str(path))
    return path


@pytest.mark.parametrize("trace", [False, True], ids=["script", "trace"])
@pytest.mark.parametrize("network", [Small, OptionA])
def test_answers_as_the_script_with_trainable_layers(network: type[nn.Module], trace: bool, tmp_path: Path) -> None:
    module = seeded(network).eval()
    program = load_program(saved(tmp_path / "model.pt", module, trace=trace), task=Task())
    x = torch.randn(IMAGE)
    torch.testing.assert_close(program.run(x)[0], module(x).detach())
    if not trace:
        assert program.dynamic_batch
    assert program.inputs[0].name == "image"
    assert dict(program.graph.named_parameters()).keys() == dict(module.named_parameters()).keys()
    plain = operators(load_program(module, task=Task()))
    found = operators(program)
    for layer in ("aten.conv2d.default", "aten.batch_norm.default", "aten.linear.default"):
        assert found[layer] == plain[layer]


def test_size_of_the_input_must_be_given(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", seeded(Small).eval(), trace=False)
    with pytest.raises(ModelError, match="size of the model's input is not known"):
        load_program(path, task=None)
    assert load_program(path, task=None, example_inputs=(torch.zeros(IMAGE),)).inputs[0].name != "image"


def test_what_torch_cannot_convert_says_how_to_export(tmp_path: Path) -> None:
    class Loops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while bool(x.sum() > 0):
                x = x - 1
            return x

    path = saved(tmp_path / "model.pt", Loops(), trace=False)
    with pytest.raises(ModelError, match="cannot convert this TorchScript") as caught:
        load_program(path, task=Task())
    assert caught.value.hint


def test_code_that_writes_files_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path / "model.pt", seeded(Small).eval(), trace=False)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    changed = 0
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, data in records.items():
        inner = name.partition("/")[2]
        if inner in (".data/serialization_id", "byteorder", "version", ".data/version"):
            continue
        if inner.endswith(".py") and b"def forward" in data and not changed:
            head, _, rest = data.partition(b"Tensor:\n")
            data = head + b"Tensor:\n" + f'    _0 = torch.save([1], "{marker}")\n'.encode() + rest
            changed += 1
        writer.write_record(inner, data, len(data))
    writer.write_end_of_file()
    assert changed == 1
    with pytest.raises(ModelError, match=r"torch\.save"):
        load_program(path, task=Task())
    assert not marker.exists()


def test_live_script_module_says_what_to_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(seeded(Small).eval())
    with pytest.raises(ModelError, match=r"live TorchScript module"):
        load_program(module, task=Task())


def test_cut_archive_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", seeded(Attention).eval(), trace=True)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ModelError, match="damaged"):
        load_program(path, task=Task())
