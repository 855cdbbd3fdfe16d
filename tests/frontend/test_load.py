"""The one door: what each kind needs, and what is said when it is not given."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from tests.frontend.models import IMAGE, OneBatch, Small, Task, TwoInputs, seeded


def exported(path: Path, module: nn.Module, *args: torch.Tensor, shapes: Any = None) -> Path:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module.eval(), args, dynamic_shapes=shapes), path)
    return path


def test_input_size_comes_from_the_task_or_the_examples() -> None:
    module = seeded(Small)
    with pytest.raises(ModelError, match=r"Small: the size of the model's input is not known") as caught:
        load_program(module, task=None)
    assert "--task" in str(caught.value)
    assert load_program(module, task=Task()).inputs[0].name == "image"
    named = load_program(module, task=None, example_inputs=(torch.zeros(1, 3, 5, 7),))
    assert (named.inputs[0].name, named.inputs[0].shape) == ("x", (None, 3, 5, 7))


def test_static_archive_becomes_dynamic_where_its_graph_allows(tmp_path: Path) -> None:
    module = seeded(Small)
    program = load_program(exported(tmp_path / "m.pt2", module, torch.zeros(IMAGE)), task=Task())
    assert program.dynamic_batch
    x = torch.randn(3, *IMAGE[1:])
    torch.testing.assert_close(program.run(x)[0], module.eval()(x).detach())


def test_archive_for_one_batch_only_says_so(tmp_path: Path) -> None:
    program = load_program(exported(tmp_path / "m.pt2", seeded(OneBatch), torch.zeros(IMAGE)), task=Task())
    assert not program.dynamic_batch
    assert program.history[-1].skipped[0].what == "dynamic batch"


def test_archive_for_a_batch_of_four_keeps_it_where_it_must(tmp_path: Path) -> None:
    class Four(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(4, 192).sum(1)

    program = load_program(exported(tmp_path / "m.pt2", Four(), torch.zeros(4, *IMAGE[1:])), task=Task())
    assert program.inputs[0].shape == (4, *IMAGE[1:])


def test_archive_needs_no_task(tmp_path: Path) -> None:
    path = exported(tmp_path / "two.pt2", TwoInputs(), torch.zeros(2, 4), torch.zeros(2, 4))
    program = load_program(path, task=None)
    assert [spec.name for spec in program.inputs] == ["left", "right"]
    assert program.name == "two"


def test_archive_of_another_size_than_the_task_is_an_error(tmp_path: Path) -> None:
    path = exported(tmp_path / "m.pt2", seeded(Small), torch.zeros(1, 3, 6, 6))
    with pytest.raises(ModelError, match=r"exported for inputs of 1x3x6x6, but the task .* 1x3x8x8"):
        load_program(path, task=Task())


def test_archive_for_any_image_size_takes_the_tasks(tmp_path: Path) -> None:
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    path = exported(tmp_path / "m.pt2", seeded(Small), torch.zeros(2, 3, 16, 16), shapes=shapes)
    assert load_program(path, task=Task()).inputs[0].shape == (None, 3, 8, 8)
    with pytest.raises(ModelError, match="images of any size"):
        load_program(path, task=None)


def test_archive_with_keyword_inputs_is_an_error(tmp_path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(seeded(Small).eval(), (), {"x": torch.zeros(IMAGE)})
        torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="keyword arguments"):
        load_program(tmp_path / "m.pt2", task=Task())


def test_arch_needs_a_checkpoint(tmp_path: Path) -> None:
    path = exported(tmp_path / "m.pt2", seeded(Small), torch.zeros(IMAGE))
    with pytest.raises(ModelError, match="--arch goes with checkpoints"):
        load_program(path, task=Task(), arch="tests.frontend.models:Small")
