"""The contract of Program, on real exported models."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from edgekit.frontend import load_program
from edgekit.program import Program, Record, Skipped
from tests.frontend.models import IMAGE, OneBatch, Small, Task, TwoInputs, seeded


@pytest.fixture(scope="module")
def program() -> Program:
    return load_program(seeded(Small), task=Task())


def test_run_gives_flat_outputs_without_gradient(program: Program) -> None:
    outputs = program.run(torch.randn(2, *IMAGE[1:]))
    assert isinstance(outputs, tuple)
    assert outputs[0].shape == (2, 4)
    assert not outputs[0].requires_grad


def test_dynamic_batch_needs_every_input() -> None:
    assert load_program(TwoInputs(), task=None, example_inputs=(torch.zeros(1, 4), torch.zeros(1, 4))).dynamic_batch
    fixed = load_program(seeded(OneBatch), task=Task())
    assert not fixed.dynamic_batch


def test_a_copy_shares_nothing(program: Program) -> None:
    x = torch.randn(IMAGE)
    before = program.run(x)[0]
    copied = program.copied()
    torch.testing.assert_close(copied.run(x)[0], before)
    with torch.no_grad():
        for value in copied.graph.parameters():
            value.add_(1.0)
    for node in list(copied.graph.graph.nodes)[:3]:
        node.meta["mark"] = 1
    assert torch.equal(program.run(x)[0], before)
    assert not torch.equal(copied.run(x)[0], before)
    assert all("mark" not in node.meta for node in program.graph.graph.nodes)


def test_its_module_can_be_trained_and_leaves_it_alone(program: Program) -> None:
    x = torch.randn(4, *IMAGE[1:])
    before = program.run(x)[0]
    module = program.module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    (output,) = module(x)
    output.square().mean().backward()
    assert all(value.grad is not None for value in module.parameters())
    optimizer.step()
    assert not torch.equal(module(x)[0], before)
    assert torch.equal(program.run(x)[0], before)


def test_history_grows_by_copies(program: Program) -> None:
    record = Record(stage="test", summary="did nothing", skipped=(Skipped(what="a", where="b", why="c"),))
    longer = program.recorded(record)
    assert longer.history == (*program.history, record)
    assert longer.graph is program.graph
    with pytest.raises(dataclasses.FrozenInstanceError):
        program.name = "other"  # type: ignore[misc]


def test_interface_matches_the_graph(program: Program) -> None:
    nodes = list(program.graph.graph.nodes)
    assert (
        [node.target for node in nodes if node.op == "placeholder"]
        == [spec.name for spec in program.inputs]
        == ["image"]
    )
    assert len(nodes[-1].args[0]) == len(program.outputs)
    assert [(spec.dtype, spec.shape) for spec in program.outputs] == [("float32", (None, 4))]
