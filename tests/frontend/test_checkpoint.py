"""Checkpoints as training scripts leave them."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from edgekit.frontend.checkpoint import find_weights, fit_weights, read_checkpoint
from edgekit.program import Program
from tests.frontend.models import IMAGE, Small, Task, seeded
from tests.frontend.test_archive import Payload

ARCH = "tests.frontend.models:Small"
State = dict[str, torch.Tensor]


def state() -> State:
    return dict(seeded(Small).state_dict())


def prefixed(prefix: str) -> State:
    return {prefix + name: value for name, value in state().items()}


def load(path: Path, **options: Any) -> Program:
    return load_program(path, task=Task(), arch=options.pop("arch", ARCH), **options)


def agrees(program: Program) -> bool:
    x = torch.randn(IMAGE)
    with torch.no_grad():
        return torch.allclose(program.run(x)[0], seeded(Small).eval()(x), atol=1e-6)


LAYOUTS: list[tuple[str, Callable[[], Any]]] = [
    ("bare", state),
    ("ordered", lambda: OrderedDict(state())),
    ("state_dict", lambda: {"state_dict": state(), "best_prec1": 0.93, "epoch": 3}),
    (
        "model",
        lambda: {"model": state(), "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}},
    ),
    ("model_state_dict", lambda: {"model_state_dict": state()}),
    ("ema", lambda: {"ema": state()}),
    ("net", lambda: {"net": state(), "acc": 93}),
    ("nested", lambda: {"model": {"state_dict": state()}}),
    ("data parallel", lambda: {"state_dict": prefixed("module.")}),
    ("compiled", lambda: prefixed("_orig_mod.")),
    ("both", lambda: prefixed("_orig_mod.module.")),
    ("both, again", lambda: prefixed("module._orig_mod.module.")),
    ("lightning", lambda: {"state_dict": prefixed("model."), "hyper_parameters": {"lr": 0.1}}),
    ("wrapped inside", lambda: {name.replace("conv.", "conv._orig_mod."): value for name, value in state().items()}),
    ("parallel inside", lambda: {name.replace("conv.", "conv.module."): value for name, value in state().items()}),
    ("no counters", lambda: {name: value for name, value in state().items() if "num_batches" not in name}),
    ("numpy best", lambda: {"state_dict": state(), "best": np.float64(0.9), "when": np.arange(3)}),
    ("arguments", lambda: {"model": state(), "args": argparse.Namespace(lr=0.1, name="x")}),
    (
        "half",
        lambda: {name: value.half().float() if value.is_floating_point() else value for name, value in state().items()},
    ),
]


@pytest.mark.parametrize("layout", [make for _, make in LAYOUTS], ids=[name for name, _ in LAYOUTS])
def test_weights_are_found_and_fit(layout: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    torch.save(layout(), path)
    network = Small()
    fit_weights(path, network, find_weights(path, read_checkpoint(path, allow_pickle=False, arch_path=None)))
    wanted = state()
    close = [
        torch.allclose(value, wanted[name], atol=1e-2)
        for name, value in network.state_dict().items()
        if "num" not in name
    ]
    assert len(close) == 7
    assert all(close)


def test_a_legacy_checkpoint_compiles_and_says_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "resnet.th"
    torch.save({"state_dict": prefixed("module."), "best_prec1": 0.9}, path, _use_new_zipfile_serialization=False)
    program = load(path)
    assert agrees(program)
    assert program.name == "resnet"
    assert "under 'state_dict'" in program.history[0].summary
    assert "module." in program.history[0].summary
    assert "best_prec1" in program.history[0].skipped[0].what
    assert str(tmp_path) not in str(program.history)


def test_safetensors_compile_too(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    library.save_file(state(), tmp_path / "model.bin")
    assert agrees(load(tmp_path / "model.bin"))


def test_saved_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    # Legacy files name the device of each storage as text; a GPU's is as long as two more letters.
    moved = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert moved != data
    path.write_bytes(moved)
    assert agrees(load(path))


def test_raw_weights_are_preferred_and_the_average_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": state(), "ema": {name: value * 0 for name, value in state().items()}}, path)
    program = load(path)
    assert agrees(program)
    assert "ema" in program.history[0].skipped[0].what


def test_without_arch_the_error_says_how(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(state(), path)
    with pytest.raises(ModelError, match=r"holds weights only \(8 tensors: conv\.weight") as caught:
        load_program(path, task=Task())
    assert "--arch package.module:callable" in str(caught.value)


def test_other_network_lists_the_first_names_on_each_side(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({**{f"layer{i}.weight": torch.zeros(1) for i in range(9)}, "fc.weight": torch.zeros(7, 4)}, path)
    with pytest.raises(ModelError) as caught:
        load(path)
    text = caught.value.message
    assert "6 in the model but not in the checkpoint:\n    conv.weight\n    bn.weight" in text
    assert "9 in the checkpoint but not in the model:\n    layer0.weight" in text
    assert text.count("\n    ...") == 2
    assert "1 of different shape:\n    fc.weight: model (4, 4), checkpoint (7, 4)" in text


def test_other_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(state(), path)
    with pytest.raises(ModelError, match=r"fc\.bias: model \(9,\), checkpoint \(4,\)"):
        load(path, arch_args={"classes": "9"})


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, 5])
def test_no_weights_inside(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(ModelError, match="no weights found"):
        load(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_objects_are_refused_before_they_run(legacy: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    torch.save({"model": state(), "x": Payload(marker)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"pickled objects \([\w.]*open\).*runs code") as caught:
        load(path)
    assert not marker.exists()
    assert "--allow-pickle" in str(caught.value)
    assert "torch.save(model.state_dict()" in str(caught.value)


def test_a_pickled_module_needs_the_flag_and_then_compiles(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(seeded(Small), path)
    with pytest.raises(ModelError, match=r"tests\.frontend\.models\.Small"):
        load_program(path, task=Task())
    program = load_program(path, task=Task(), allow_pickle=True)
    assert agrees(program)
    assert program.name == "whole"
    assert "pickled Small" in program.history[0].summary


def test_a_pickled_module_inside_a_dict_and_its_weights_for_an_arch(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": seeded(Small), "epoch": 1}, path)
    assert agrees(load_program(path, task=Task(), allow_pickle=True))
    assert agrees(load(path, allow_pickle=True))


def test_a_pickled_module_of_a_missing_class_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(nn.Linear):
        pass

    Local.__module__, Local.__qualname__ = "tests.frontend.models", "Gone"
    monkeypatch.setattr("tests.frontend.models.Gone", Local, raising=False)
    path = tmp_path / "model.pt"
    torch.save(Local(1, 1), path)
    monkeypatch.undo()
    with pytest.raises(ModelError, match="cannot unpickle: AttributeError") as caught:
        load_program(path, task=Task(), allow_pickle=True)
    assert "--arch-path" in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_cut_checkpoint_is_an_error(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="damaged"):
        load(path)


@given(data=st.binary(max_size=200))
def test_any_tail_of_a_legacy_file_is_an_error_never_a_crash(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("legacy") / "model.pt"
    path.write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + data)
    with pytest.raises(ModelError):
        load(path)


def test_arch_with_a_whole_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(seeded(Small).eval()), str(path))
    with pytest.raises(ModelError, match="holds its own network"):
        load(path)


def test_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ModelError, match="bare pickle"):
        load(path, allow_pickle=True)
    assert not marker.exists()
