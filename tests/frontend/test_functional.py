"""Writes become values: every way in which a model can write, against what eager PyTorch answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.frontend import load_program
from edgekit.program import Program

EXAMPLE = torch.zeros(1, 4, 6, 6)


class Body(nn.Module):
    """A module around one function; a scale before it, so that what is written is not the input."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.scale = nn.Parameter(torch.full((1,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * self.scale)


def select(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


def slice_scaled(x: Tensor) -> Tensor:
    x[:, 1:3, ::2].mul_(2.0)
    return x


def slice_copied(x: Tensor) -> Tensor:
    x[:, 1:3] = x[:, :2] + 1
    return x


def broadcast_copy(x: Tensor) -> Tensor:
    x[:, 1:3] = x[:, :1]
    return x


def view_then_write(x: Tensor) -> Tensor:
    flat = x.view(x.shape[0], -1)
    flat.add_(1.0)
    return x * 2


def write_then_old_view(x: Tensor) -> Tensor:
    row = x[:, :, 0]
    x.add_(1.0)
    return row


def view_of_view(x: Tensor) -> Tensor:
    x.transpose(1, 2)[:, 1].unsqueeze(1).relu_().neg_()
    return x


def permuted(x: Tensor) -> Tensor:
    x.permute(3, 0, 2, 1)[2].sigmoid_()
    return x


def chunk(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    b.add_(a)
    return torch.cat([a, x], 1)


def chunk_after_write(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    x.mul_(3.0)
    return a + b


def split(x: Tensor) -> Tensor:
    pieces = x.split([1, 3], 1)
    pieces[1].clamp_(min=0.0)
    return x


def unbind(x: Tensor) -> Tensor:
    x.unbind(1)[2].zero_()
    return x


def diagonal(x: Tensor) -> Tensor:
    x.diagonal(dim1=2, dim2=3).fill_(7.0)
    return x


def reshape_that_copies(x: Tensor) -> Tensor:
    copied = x.transpose(1, 2).reshape(x.shape[0], -1)
    copied.mul_(0.0)
    return x + copied.sum()


def reshape_that_aliases(x: Tensor) -> Tensor:
    x.reshape(x.shape[0], -1).mul_(0.5)
    return x


def dropout_aliases(x: Tensor) -> Tensor:
    y = nn.functional.dropout(x, 0.5, False)
    y.add_(1.0)
    return x


def clone_does_not(x: Tensor) -> Tensor:
    y = x.clone()
    y.zero_()
    return x + y


def contiguous_aliases(x: Tensor) -> Tensor:
    x.contiguous().neg_()
    return x


def two_views(x: Tensor) -> Tensor:
    left, right = x[..., :3], x[..., 2:]
    left.add_(1.0)
    right.mul_(2.0)
    return left - right[..., :3]


def value_before_write(x: Tensor) -> Tensor:
    before = x + 0
    total = x.sum((1, 2, 3), keepdim=True)
    x.sub_(total)
    return before + x


def masked(x: Tensor) -> Tensor:
    x.masked_fill_(x > 0, -1.0)
    x[x < -2] = 5.0
    return x


def promoted(x: Tensor) -> Tensor:
    y = x.round().to(torch.int32)
    y.mul_(3)
    x.add_(y.to(torch.float64))
    return x


def twice(x: Tensor) -> Tensor:
    for _ in range(3):
        x += 1
        x.relu_()
    return x


def batch_row(x: Tensor) -> Tensor:
    x[0].mul_(2.0)
    return x


def flattened(x: Tensor) -> Tensor:
    x.flatten(1).squeeze().unflatten(-1, (4, 36)).tanh_()
    return x


CASES = [
    select, slice_scaled, slice_copied, broadcast_copy, view_then_write, write_then_old_view, view_of_view,
    permuted, chunk, chunk_after_write, split, unbind, diagonal, reshape_that_copies, reshape_that_aliases,
    dropout_aliases, clone_does_not, contiguous_aliases, two_views, value_before_write, masked, promoted, twice,
    batch_row, flattened,
]  # fmt: skip


def written(program: Program) -> list[str]:
    return [
        str(node.target)
        for node in program.graph.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    ]


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_written_graph_answers_as_eager(body: Callable[[Tensor], Tensor]) -> None:
    module = Body(body)
    program = load_program(module, task=None, example_inputs=(EXAMPLE,))
    assert written(program) == []
    for batch in (1, 2, 5) if program.dynamic_batch else (1,):
        x = torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = module(x.clone())
        torch.testing.assert_close(program.run(x)[0], wanted, rtol=1e-6, atol=1e-6)
        # Running must not change what is fed, nor what the next run gives.
        torch.testing.assert_close(program.run(x)[0], wanted, rtol=1e-6, atol=1e-6)


def test_writes_are_dynamic_in_the_batch() -> None:
    static = [
        body.__name__
        for body in CASES
        if not load_program(Body(body), task=None, example_inputs=(EXAMPLE,)).dynamic_batch
    ]
    assert set(static) <= {"reshape_that_copies", "masked", "flattened"}, static


def test_input_of_the_caller_is_not_written() -> None:
    class WritesInput(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.5).mul(2)

    program = load_program(WritesInput(), task=None, example_inputs=(EXAMPLE,))
    x = torch.ones(2, 4, 6, 6)
    assert program.run(x)[0].mean() == 1.0
    assert x.mean() == 1.0


def test_counter_buffer_is_dropped_and_recorded() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * 2

    module = Counts()
    program = load_program(module, task=None, example_inputs=(EXAMPLE,))
    assert [(item.what, item.where) for record in program.history for item in record.skipped] == [
        ("write to a buffer", "calls")
    ]
    assert module.calls == 0


def test_state_that_answers_depend_on_is_refused() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.last += x.mean()
            return x * self.last

    with pytest.raises(ModelError, match=r"keeps state.*'last'"):
        load_program(Remembers(), task=None, example_inputs=(EXAMPLE,))


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x.as_strided((1, 4), (1, 2)).mul_(2.0).sum() + x,
        lambda x: x.unfold(3, 2, 2).mul_(2.0).sum() + x,
    ],
    ids=["as_strided", "unfold"],
)
def test_view_without_inverse_is_refused(body: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ModelError, match="writes through the view"):
        load_program(Body(body), task=None, example_inputs=(EXAMPLE,))
