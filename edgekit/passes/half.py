"""Turns a folded float program into one that computes in half precision, with every type explicit in the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import clean, is_call
from edgekit.passes.contract import PassContext, PassResult
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program, Record

__all__ = ["ToHalf"]

_A = torch.ops.aten
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, kw_only=True)
class ToHalf:
    """Weights, constants and arithmetic in float16; inputs and outputs keep their types behind casts.

    Strongly typed engines run what the graph says, so this is how float layers become fp16 there.
    """

    name: str = "to-half"

    def check(self, program: Program) -> None:
        for node in program.graph.graph.nodes:
            if is_call(node, {QDQ}):
                raise UserError(
                    f"'{program.name}' is quantized ('{node.name}')", hint="convert the float program to half"
                )
        for name, tensor in [*program.graph.named_parameters(), *program.graph.named_buffers()]:
            if tensor.is_floating_point() and tensor.numel() and float(tensor.detach().abs().max()) > _LARGEST_HALF:
                peak = float(tensor.detach().abs().max())
                raise UserError(
                    f"'{name}' of '{program.name}' holds {peak:.3g}, beyond float16's "
                    f"largest value {_LARGEST_HALF:.0f}",
                    hint="compile for fp32 or int8 instead (--precision)",
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        calls = graph.graph
        changed = 0
        for tensor in [*graph.parameters(), *graph.buffers()]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.half()
                changed += 1
        for node in list(calls.nodes):
            if node.op == "call_function" and torch.float32 in (*node.args, *node.kwargs.values()):
                node.args = tuple(torch.float16 if item is torch.float32 else item for item in node.args)
                node.kwargs = {
                    key: torch.float16 if item is torch.float32 else item for key, item in node.kwargs.items()
                }
        for spec, node in zip(program.inputs, [item for item in calls.nodes if item.op == "placeholder"], strict=True):
            if spec.dtype == "float32":
                _cast_after(calls, node, torch.float16)
        output = next(node for node in calls.nodes if node.op == "output")
        flat = output.args[0] if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
        with calls.inserting_before(output):
            wrapped = tuple(
                calls.call_function(_A.to.dtype, (item, torch.float32))
                if isinstance(item, fx.Node) and spec.dtype == "float32"
                else item
                for item, spec in zip(flat, program.outputs, strict=True)
            )
        output.args = (wrapped,)
        clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{changed} tensors to float16",
            changed=changed,
        )
        return PassResult(program=program.recorded(record))


def _cast_after(calls: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    with calls.inserting_after(node):
        cast = calls.call_function(_A.to.dtype, (node, dtype))
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
    return cast
