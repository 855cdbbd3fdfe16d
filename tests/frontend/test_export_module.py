"""Export: the graph answers as the module, keeps the layers, and says what it could not do."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from edgekit.program import Program
from tests.frontend import models
from tests.frontend.models import IMAGE, Task, seeded


def operators(program: Program) -> Counter[str]:
    return Counter(str(node.target) for node in program.graph.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    "network",
    [
        models.Small,
        models.OptionA,
        models.Depthwise,
        models.SqueezeExcite,
        models.Crnn,
        models.Attention,
        models.Encoder,
    ],
)
def test_graph_answers_as_the_module_for_any_batch(network: type[nn.Module]) -> None:
    module = seeded(network)
    program = load_program(module, task=Task())
    assert program.dynamic_batch
    assert program.name == network.__name__
    for batch in (1, 2, 4):
        x = torch.randn(batch, *IMAGE[1:], generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = module.eval()(x)
        (found,) = program.run(x)
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()
    assert program.history[-1].details["max_relative_l2"] <= 1e-5


def test_layers_stay_whole_and_nothing_writes() -> None:
    program = load_program(seeded(models.Small), task=Task())
    assert operators(program) == {
        "aten.conv2d.default": 1,
        "aten.batch_norm.default": 1,
        "aten.relu.default": 1,
        "aten.mean.dim": 1,
        "aten.dropout.default": 1,
        "aten.linear.default": 1,
    }
    norm = next(node for node in program.graph.graph.nodes if str(node.target) == "aten.batch_norm.default")
    assert norm.args[5] is False


def test_attention_and_recurrence_stay_whole() -> None:
    assert (
        operators(load_program(seeded(models.Attention), task=Task()))["aten.scaled_dot_product_attention.default"] == 1
    )
    assert operators(load_program(seeded(models.Crnn), task=Task()))["aten.lstm.input"] == 1
    fused = operators(load_program(seeded(models.Encoder), task=Task()))
    assert fused["aten.linear.default"] == 4
    assert not [name for name in fused if "transformer" in name or "native_multi_head" in name]


def test_only_parameters_constants_inputs_and_functions_are_left() -> None:
    program = load_program(seeded(models.OptionA), task=Task())
    assert {node.op for node in program.graph.graph.nodes} == {"placeholder", "get_attr", "call_function", "output"}
    names = {name for name, _ in program.graph.named_parameters()}
    assert names == {
        "conv1.weight",
        "conv1.bias",
        "conv2.weight",
        "conv2.bias",
        "bn.weight",
        "bn.bias",
        "linear.weight",
        "linear.bias",
    }
    assert {name for name, _ in program.graph.named_buffers()} == {"bn.running_mean", "bn.running_var"}
    assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in program.graph.parameters())


def test_nodes_of_layers_are_named_after_them() -> None:
    names = {node.name for node in load_program(seeded(models.OptionA), task=Task()).graph.graph.nodes}
    assert {"conv1", "conv2", "bn", "linear"} <= names


def test_no_path_of_this_machine_is_kept() -> None:
    program = load_program(seeded(models.Small), task=Task())
    assert all(node.meta.keys() <= {"val", "nn_module_stack", "source"} for node in program.graph.graph.nodes)
    sources = [node.meta["source"] for node in program.graph.graph.nodes if "source" in node.meta]
    assert sources
    assert all(source.startswith("models.py, line ") for source in sources)


def test_the_users_module_is_left_as_it_is() -> None:
    module = seeded(models.Small).train().double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    program = load_program(module, task=Task())
    assert module.training
    assert module.bn.training
    assert all(
        torch.equal(value, before[name]) and value.dtype == before[name].dtype
        for name, value in module.state_dict().items()
    )
    with torch.no_grad():
        for value in program.graph.parameters():
            value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_two_exports_give_the_same_graph() -> None:
    graphs = [str(load_program(seeded(models.OptionA), task=Task()).graph.graph) for _ in range(2)]
    assert graphs[0] == graphs[1]


def test_shared_weight_stays_shared_also_in_copies() -> None:
    program = load_program(seeded(models.Shared), task=Task()).copied()
    linears = [node for node in program.graph.graph.nodes if str(node.target) == "aten.linear.default"]
    weights = [program.graph.get_parameter(node.args[1].target) for node in linears]
    assert len(linears) == 2
    assert weights[0] is weights[1]


def test_outputs_are_named_by_the_dict_that_the_model_returns() -> None:
    module = seeded(models.Named)
    program = load_program(module, task=Task())
    assert [spec.name for spec in program.outputs] == ["logits", "levels_0", "levels_1"]
    assert [spec.shape for spec in program.outputs] == [(None, 2), (None, 2, 8, 8), (None, 2)]
    x = torch.randn(2, *IMAGE[1:])
    with torch.no_grad():
        wanted = module(x)
    for found, value in zip(program.run(x), (wanted["logits"], *wanted["levels"]), strict=True):
        torch.testing.assert_close(found, value)


def test_several_inputs_keep_their_names_and_a_tuple_is_numbered() -> None:
    example = (torch.zeros(1, 4), torch.zeros(1, 4))
    program = load_program(models.TwoInputs(), task=None, example_inputs=example)
    assert [(spec.name, spec.dtype, spec.shape) for spec in program.inputs] == [
        ("left", "float32", (None, 4)),
        ("right", "float32", (None, 4)),
    ]
    assert [(spec.name, spec.shape) for spec in program.outputs] == [("output", (None, 4)), ("output_1", (None,))]


def test_a_model_for_one_batch_says_why() -> None:
    module = seeded(models.OneBatch)
    program = load_program(module, task=Task())
    assert not program.dynamic_batch
    assert program.inputs[0].shape == IMAGE
    assert program.outputs[0].shape == (1, 3)
    (skipped,) = program.history[-1].skipped
    assert skipped.what == "dynamic batch"
    assert "shape" in skipped.why
    x = torch.randn(IMAGE)
    torch.testing.assert_close(program.run(x)[0], module(x).detach())


def test_batch_in_another_dimension_of_an_output_falls_back_to_one_batch() -> None:
    class TimeFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).permute(2, 0, 1)

    program = load_program(TimeFirst(), task=Task())
    assert program.outputs[0].shape == (64, 1, 3)
    assert "batch first" in program.history[-1].skipped[0].why


def test_gradient_switches_are_opened() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = seeded(models.Small)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.small(x)
            with torch.autocast("cpu", enabled=False):
                return y * 2

    program = load_program(Frozen(), task=Task())
    assert operators(program)["aten.linear.default"] == 1
    assert "small.fc.weight" in dict(program.graph.named_parameters())


def test_autocast_is_refused() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.fc(x).float()

    with pytest.raises(ModelError, match="autocast") as caught:
        load_program(Mixed(), task=Task())
    assert "edgekit chooses the precision" in str(caught.value)


def test_a_branch_on_values_names_the_line() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(ModelError, match=r"cannot capture.*test_export_module\.py:\d+: if x\.sum\(\) > 0") as caught:
        load_program(Branches(), task=Task())
    assert caught.value.__cause__ is not None
    assert len(caught.value.message) < 600


def test_numbers_from_values_are_an_error() -> None:
    class Items(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.max().item() > 1)

    with pytest.raises(ModelError):
        load_program(Items(), task=Task())


def test_a_model_that_fails_on_the_input_says_which() -> None:
    with pytest.raises(ModelError, match=r"fails on an input of 1x4x8x8: .*channels") as caught:
        load_program(seeded(models.Small), task=None, example_inputs=(torch.zeros(1, 4, 8, 8),))
    assert "[input]" in str(caught.value)


def test_random_answers_are_an_error() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x, 0.5, training=True)

    with pytest.raises(ModelError, match="differently each time"):
        load_program(Noisy(), task=Task())


@pytest.mark.parametrize("answer", [3, None, "text"])
def test_answers_that_are_no_tensors_are_an_error(answer: object) -> None:
    class Returns(nn.Module):
        def forward(self, x: Tensor) -> object:
            return answer

    with pytest.raises(ModelError, match="the model returns"):
        load_program(Returns(), task=Task())


def test_half_precision_weights_become_float32() -> None:
    program = load_program(seeded(models.Small).half(), task=Task())
    assert {value.dtype for value in program.graph.parameters()} == {torch.float32}
    assert program.outputs[0].dtype == "float32"


def test_a_module_that_cannot_be_copied_is_an_error() -> None:
    class Derived(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3)) * 2

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * self.weight

    with pytest.raises(ModelError, match="cannot be copied"):
        load_program(Derived(), task=Task())
