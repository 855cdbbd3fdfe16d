"""Training mode of exported graphs: what the switch changes, and what it must not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import UserError
from edgekit.frontend import load_program
from edgekit.passes.train.mode import inference_view, tensors_of, training_copy
from edgekit.program import Program
from tests import networks

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(48, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, _ = self.lstm(x.permute(0, 2, 1, 3).flatten(2))
        return self.head(rows[:, -1])


def _train_as_torch_does(module: nn.Module, seed: int) -> torch.Tensor:
    module.train()
    torch.manual_seed(seed)
    return module(IMAGES)


@pytest.mark.parametrize("name", ["residual", "depthwise", "upsampling", "shared", "option-a", "dense", "attention"])
def test_live_training_mode_is_that_of_the_module(name: str) -> None:
    module, program = networks.module(name), networks.program(name)
    trained = training_copy(program.graph, batch_norm="live")
    expected = _train_as_torch_does(module, 5)
    torch.manual_seed(5)
    (found,) = trained(IMAGES)
    torch.testing.assert_close(found, expected)
    # Running statistics too, and every gradient.
    buffers = dict(module.named_buffers())
    for key, value in trained.named_buffers():
        torch.testing.assert_close(value, buffers[key])
    expected.square().sum().backward()
    found.square().sum().backward()
    parameters = dict(module.named_parameters())
    for key, value in trained.named_parameters():
        torch.testing.assert_close(value.grad, parameters[key].grad, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_takes_the_running_statistics() -> None:
    module, program = networks.module("residual"), networks.program("residual")
    trained = training_copy(program.graph, batch_norm="frozen")
    before = {key: value.clone() for key, value in trained.named_buffers()}
    module.train()
    for item in module.modules():
        if isinstance(item, nn.BatchNorm2d):
            item.eval()
    torch.manual_seed(3)
    expected = module(IMAGES)
    torch.manual_seed(3)
    torch.testing.assert_close(trained(IMAGES)[0], expected)
    assert all(torch.equal(before[key], value) for key, value in trained.named_buffers())


def test_recurrent_layers_drop_as_the_module_does() -> None:
    torch.manual_seed(0)
    module = Recurrent()
    program = load_program(module.eval(), task=networks.spec())
    trained = training_copy(program.graph, batch_norm="live")
    expected = _train_as_torch_does(module, 9)
    torch.manual_seed(9)
    torch.testing.assert_close(trained(IMAGES)[0], expected)
    assert not torch.equal(trained(IMAGES)[0], trained(IMAGES)[0]), "dropout changes from call to call"


def test_a_norm_that_was_exported_with_no_momentum_is_updated() -> None:
    class Cumulative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.norm(self.conv(x))).mean((2, 3))

    program = load_program(Cumulative().eval(), task=networks.spec())
    trained = training_copy(program.graph, batch_norm="live")
    trained(IMAGES)
    assert float(trained.norm.running_mean.abs().sum()) > 0


def _untouched(program: Program, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], value) for name, value in tensors_of(program.graph).items())


def test_the_given_graph_is_left_alone_and_its_view_follows_the_training() -> None:
    program = networks.program("residual")
    before = {name: value.clone() for name, value in tensors_of(program.graph).items()}
    code = str(program.graph.graph)
    trained = training_copy(program.graph, batch_norm="live")
    view = inference_view(trained, program.graph)
    assert torch.equal(view(IMAGES)[0], program.run(IMAGES)[0])
    trained(IMAGES)[0].sum().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.sub_(0.1 * parameter.grad)
    assert _untouched(program, before)
    assert str(program.graph.graph) == code
    assert not torch.equal(view(IMAGES)[0], program.run(IMAGES)[0])
    assert {id(value) for value in view.parameters()} == {id(value) for value in trained.parameters()}


def test_features_come_after_the_outputs_and_are_not_written_over() -> None:
    program = networks.program("residual")
    trained = training_copy(program.graph, batch_norm="frozen", features=("one_1", "relu"))
    output, norm, activation = (value.detach() for value in trained(IMAGES))
    assert output.shape == (6, 4)
    assert norm.shape == activation.shape == (6, 8, 16, 16)
    assert float(norm.min()) < 0 <= float(activation.min())
    with pytest.raises(UserError, match="the graph has no node 'onne_1'") as caught:
        training_copy(program.graph, batch_norm="frozen", features=("onne_1",))
    assert caught.value.hint == "did you mean 'one_1'?"
