"""Whole residual blocks: which are found, what leaves, and that what stays computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ConfigError
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.prune import Prune, PruneOptions
from edgekit.passes.prune.arithmetic import Arithmetic
from edgekit.passes.prune.blocks import find_blocks, without_blocks
from edgekit.passes.prune.distance import distance_on
from edgekit.passes.prune.flow import trace
from edgekit.passes.prune.plan import Measures
from edgekit.passes.prune.rules import TABLE
from edgekit.program import Program
from edgekit.progress import SilentProgress
from tests.passes.prune.networks import NETWORKS, Case, Classified, Residual, build

CONTEXT = PassContext(progress=SilentProgress())


class Weak(nn.Module):
    """Four residual blocks; the second and third hardly add anything."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(8) for _ in range(4))
        self.stem = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


def weak() -> Program:
    module = build(Case(make=lambda: Classified(Weak(), 8)))
    for index in (1, 2):
        norm = module.body.blocks[index].norm2  # type: ignore[union-attr,index]
        nn.init.constant_(norm.weight, 1e-3)
        nn.init.zeros_(norm.bias)
    return load_program(module, task=None, example_inputs=(torch.randn(2, 3, 16, 16),))


def images() -> Iterator[tuple[Tensor, ...]]:
    yield (torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)),)


def test_blocks_are_found_with_their_layers() -> None:
    found = find_blocks(trace(weak(), TABLE))
    assert [block.layers for block in found] == [
        (f"body.blocks.{index}.one", f"body.blocks.{index}.two") for index in range(4)
    ]


def test_a_shortcut_with_a_layer_of_its_own_is_no_block() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.side(x)

    program = load_program(Projected().eval(), task=None, example_inputs=(torch.randn(2, 3, 8, 8),))
    assert find_blocks(trace(program, TABLE)) == ()


def test_the_blocks_that_do_least_leave() -> None:
    program = weak()
    options = PruneOptions(keep=0.6, remove="blocks")
    pruned = run_passes(program, [Prune(options=options, measures=Measures(batches=images))], CONTEXT)
    record = pruned.history[-1]
    assert record.details["removed"] == [
        ["body.blocks.1.one", "body.blocks.1.two"],
        ["body.blocks.2.one", "body.blocks.2.two"],
    ] or record.details["removed"] == [
        ["body.blocks.2.one", "body.blocks.2.two"],
        ["body.blocks.1.one", "body.blocks.1.two"],
    ]
    names = dict(pruned.graph.named_parameters())
    assert not any(".blocks.1." in name or ".blocks.2." in name for name in names)
    assert record.details["macs_left"] <= 0.6
    assert distance_on(program, images)(pruned) < 0.01


def test_a_program_without_a_block_is_the_one_with_its_branch_at_zero() -> None:
    program = weak()
    flow = trace(program, TABLE)
    block = find_blocks(flow)[0]
    zero = program.copied()
    with torch.no_grad():
        for name, parameter in zero.graph.named_parameters():
            if name.startswith("body.blocks.0.norm2"):
                parameter.zero_()
    example = next(images())
    assert torch.equal(without_blocks(program, [block]).run(*example)[0], zero.run(*example)[0])


def test_neighbouring_blocks_leave_together() -> None:
    program = weak()
    flow = trace(program, TABLE)
    blocks = find_blocks(flow)
    rest = without_blocks(program, blocks)
    assert [name for name, _ in rest.graph.named_parameters() if "blocks" in name] == []
    assert rest.run(*next(images()))[0].shape == (4, 5)
    # 2 layers of 8 x 8 x 9 per pixel and block, beside the stem's 3 x 8 x 9 and the head's 40.
    arithmetic = Arithmetic(flow)
    assert arithmetic.left((), blocks) == 16 * 16 * 216 + 40
    assert arithmetic.total - arithmetic.left((), blocks[:1]) == 16 * 16 * 2 * 576


def test_excluded_blocks_stay() -> None:
    options = PruneOptions(keep=0.1, remove="blocks", exclude=("body.blocks.1.*",))
    pruned = run_passes(weak(), [Prune(options=options, measures=Measures(batches=images))], CONTEXT)
    assert ["body.blocks.1.one", "body.blocks.1.two"] not in pruned.history[-1].details["removed"]
    assert any("is the least that can be reached" in item.why for item in pruned.history[-1].skipped)


def test_blocks_without_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="removing blocks is measured on images"):
        run_passes(weak(), [Prune(options=PruneOptions(keep=0.5, remove="blocks"))], CONTEXT)


def test_distance_of_a_program_from_itself_is_zero() -> None:
    program = weak()
    assert distance_on(program, images)(program) == 0


def test_blocks_of_a_transformer_are_found() -> None:
    case = NETWORKS["attention"]
    program = load_program(build(case), task=None, example_inputs=(torch.randn(2, 3, 16, 16),))
    assert [block.layers for block in find_blocks(trace(program, TABLE))] == [("qkv", "project"), ("enter", "leave")]
