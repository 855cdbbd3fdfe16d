from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import UserError
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.aten import BATCH_NORM, DROPOUT, is_call
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from tests.networks import CONTEXT, NETWORKS, folded, module, pictures, program, spec


def as_the_trainer_does(images: torch.Tensor) -> torch.Tensor:
    """The preprocessing of the task spec, written the usual way on RGB floats."""
    item = spec().input
    rgb = images.flip(3).permute(0, 3, 1, 2).float() * item.scale
    return (rgb - torch.tensor(item.mean).view(1, 3, 1, 1)) / torch.tensor(item.std).view(1, 3, 1, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_program_on_raw_images_answers_as_the_module_on_preprocessed_ones(name: str) -> None:
    images = pictures(5)
    with torch.no_grad():
        expected = module(name)(as_the_trainer_does(images))
    (actual,) = folded(name).run(images)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_batch_norm_and_no_dropout_is_left(name: str) -> None:
    assert not [node for node in folded(name).graph.graph.nodes if is_call(node, {*BATCH_NORM, *DROPOUT})]


def test_what_could_not_go_into_a_convolution_is_recorded_with_its_reason() -> None:
    result = run_passes(program("dense"), [FoldBatchNorm()], CONTEXT)
    (skipped,) = result.history[-1].skipped
    assert skipped.what == "batch norm"
    assert "consumers" in skipped.why
    assert [item.why for item in run_passes(program("shared"), [FoldBatchNorm()], CONTEXT).history[-1].skipped] == [
        "the weight of 'twice_0' is shared by 2 nodes; became a multiply and an add",
        "the weight of 'twice_2' is shared by 2 nodes; became a multiply and an add",
    ]


def test_the_given_program_stays_as_it_was() -> None:
    before = program("residual")
    weights = {name: value.clone() for name, value in before.graph.state_dict().items()}
    run_passes(before, [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)
    after = before.graph.state_dict()
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert any(is_call(node, BATCH_NORM) for node in before.graph.graph.nodes)


def test_input_becomes_the_raw_image() -> None:
    (item,) = folded("residual").inputs
    assert (item.name, item.dtype, item.shape) == ("image", "uint8", (None, 16, 16, 3))


def test_colour_order_costs_nothing_where_a_convolution_comes_first() -> None:
    result = folded("residual")
    assert "first convolution's weight" in result.history[-1].summary
    assert not [node for node in result.graph.graph.nodes if is_call(node, {torch.ops.aten.flip.default})]


def test_colour_order_becomes_an_index_where_something_else_comes_first() -> None:
    class Negated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module("residual")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(-x)

    result = run_passes(load_program(Negated(), task=spec()), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)
    images = pictures(3)
    with torch.no_grad():
        expected = module("residual")(-as_the_trainer_does(images))
    torch.testing.assert_close(result.run(images)[0], expected, rtol=1e-4, atol=1e-4)
    assert "an index" in result.history[-1].summary


def test_a_size_that_disagrees_with_the_spec_is_refused_with_both_numbers() -> None:
    from dataclasses import replace

    wrong = replace(program("residual"), task=spec(size=24))
    with pytest.raises(UserError, match=r"\(None, 3, 16, 16\).*\(N, 3, 24, 24\)"):
        run_passes(wrong, [FoldPreprocessing()], CONTEXT)


def test_batch_norm_in_training_mode_is_refused() -> None:
    item = program("residual")
    for node in item.graph.graph.nodes:
        if is_call(node, BATCH_NORM):
            node.args = (*node.args[:5], True, *node.args[6:])
    with pytest.raises(UserError, match="training mode"):
        run_passes(item, [FoldBatchNorm()], CONTEXT)


class LinearNorm(nn.Module):
    """Batch norm after a linear, as heads of embedding networks have it, and a bias that two layers share."""

    def __init__(self, *, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens
        self.one = nn.Linear(12, 6)
        self.two = nn.Linear(6, 6)
        self.two.bias = self.one.bias
        self.norm = nn.BatchNorm1d(4 if tokens else 6)
        assert self.norm.running_mean is not None
        self.norm.running_mean.uniform_(-1, 1)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.relu(self.norm(self.one(x))))


def test_batch_norm_goes_into_the_linear_before_it_and_leaves_a_shared_bias_to_the_others() -> None:
    torch.manual_seed(0)
    net, x = LinearNorm().eval(), torch.randn(5, 12)
    result = run_passes(load_program(net, task=None, example_inputs=(x,)), [FoldBatchNorm()], CONTEXT)
    assert result.history[-1].summary.startswith("1 batch norms into layers")
    torch.testing.assert_close(result.run(x)[0], net(x).detach(), rtol=1e-5, atol=1e-5)


def test_batch_norm_over_tokens_is_not_one_over_a_linears_channels() -> None:
    torch.manual_seed(0)
    net, x = LinearNorm(tokens=True).eval(), torch.randn(5, 4, 12)
    result = run_passes(load_program(net, task=None, example_inputs=(x,)), [FoldBatchNorm()], CONTEXT)
    (skipped,) = result.history[-1].skipped
    assert "not those of the linear" in skipped.why
    torch.testing.assert_close(result.run(x)[0], net(x).detach(), rtol=1e-5, atol=1e-5)
