"""A quantized program on grids of few levels, which rounding really hurts."""

from __future__ import annotations

import functools

import torch

from edgekit.passes import run_passes
from edgekit.passes.aten import is_call, read_tensor
from edgekit.passes.fold import FoldPixels
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program
from tests.networks import CONTEXT, folded
from tests.passes.qat.test_trainable import PIXELS
from tests.passes.test_quantize import quantized


@functools.cache
def pair(name: str = "residual", levels: int = 15) -> tuple[Program, Program]:
    """The float program, and its int8 form with weights on so many levels as 4 bits have; the pixels' grid is whole."""
    floating = run_passes(folded(name), [FoldPixels(rules=PIXELS)], CONTEXT)
    program = quantized(floating, PIXELS).copied()
    for node in [node for node in program.graph.graph.nodes if is_call(node, {QDQ})]:
        source, scale, zero_point, axis, _, qmax = node.args
        if source.op == "get_attr":
            limit = levels // 2
            node.args = (source, scale, zero_point, axis, -limit, limit)
            read_tensor(program.graph, scale).mul_(qmax / limit)
    program.graph.recompile()
    return floating, program


def distance(floating: Program, program: Program, images: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of the classes' probabilities from the float program's, in nats."""
    wanted, found = (item.run(images)[0].log_softmax(1) for item in (floating, program))
    return float((wanted.exp() * (wanted - found)).sum(1).mean())
