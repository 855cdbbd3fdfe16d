"""One spelling: decomposed and scripted forms become what ``nn.Module`` code gives."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from edgekit.frontend import load_program
from tests.frontend.models import IMAGE, Attention, OptionA, Small, Task, seeded
from tests.frontend.test_export_module import operators


class Spelled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.detach().clone().contiguous()[:, :, :].to(torch.float32).type_as(x)
        torch._assert(y.shape[1] == 3, "three channels")
        return y.view(y.shape[0], -1).view(-1, 3) + torch.tensor([1.0, 2.0, 3.0])


def test_what_says_nothing_is_gone() -> None:
    program = load_program(Spelled(), task=None, example_inputs=(torch.zeros(1, 3, 4, 4),))
    assert set(operators(program)) <= {
        "aten.reshape.default",
        "aten.add.Tensor",
        "aten.sym_size.int",
        "aten.view.default",
    }
    assert "aten.view.default" not in operators(program)


def test_real_casts_and_partial_slices_stay() -> None:
    class Casts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, 1:].to(torch.int32) + 1).to(torch.float32)[:, :, ::2]

    found = operators(load_program(Casts(), task=None, example_inputs=(torch.zeros(1, 3, 4, 4),)))
    assert found["aten.slice.Tensor"] == 2
    assert sum(count for name, count in found.items() if name.startswith(("aten.to.", "aten._to_copy"))) == 2


@pytest.mark.parametrize("network", [Small, OptionA, Attention])
def test_decomposed_programs_get_their_layers_back(network: type[nn.Module]) -> None:
    module = seeded(network).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        decomposed = torch.export.export(module, (torch.zeros(IMAGE),)).run_decompositions({}).module()
    plain, found = operators(load_program(module, task=Task())), operators(load_program(decomposed, task=Task()))
    for layer in (
        "aten.conv2d.default",
        "aten.batch_norm.default",
        "aten.linear.default",
        "aten.scaled_dot_product_attention.default",
    ):
        assert found[layer] == plain[layer], layer
    x = torch.randn(IMAGE)
    torch.testing.assert_close(load_program(decomposed, task=Task()).run(x)[0], module(x).detach())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_general_convolution_becomes_the_one_of_its_rank(rank: int, transposed: bool) -> None:
    class General(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2 if not transposed else 4, *[3] * rank))

        def forward(self, x: Tensor) -> Tensor:
            ones = [1] * rank
            return torch.convolution(
                x, self.weight, None, [2] * rank, ones, ones, transposed, ones if transposed else [0] * rank, 2
            )

    torch.manual_seed(0)
    example = torch.randn(1, 4, *[6] * rank)
    module = General()
    program = load_program(module, task=None, example_inputs=(example,))
    (name,) = operators(program)
    assert name == (f"aten.conv_transpose{rank}d" if transposed else f"aten.conv{rank}d") + (
        ".input" if transposed and rank > 1 else ".default"
    )
    torch.testing.assert_close(program.run(example)[0], module(example).detach())
