"""Folds the preprocessing arithmetic into the graph, so that the engine takes the raw image as the camera gives it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import fx

from edgekit.errors import UserError
from edgekit.passes.aten import CONV, argument, clean, is_call, read_tensor, store_buffer, store_parameter
from edgekit.passes.contract import PassContext, PassResult
from edgekit.program import Program, Record
from edgekit.runtime.tasks.base import ImageInput

__all__ = ["FoldPreprocessing"]

_A = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class FoldPreprocessing:
    """Turns the float NCHW input into the raw NHWC image: all preprocessing but the resize moves into the graph.

    Cast, layout, colour order, scale, mean and std, in this order: TensorRT takes uint8 into nothing but a Cast. The
    colour order goes into the first convolution's weight where one stands first (exact, and free at run time), into an
    index otherwise.
    """

    name: str = "fold-preprocessing"

    def check(self, program: Program) -> None:
        if program.task is None:
            raise UserError(
                f"'{program.name}' has no task spec, so its preprocessing is unknown", hint="give a task spec (--task)"
            )
        if len(program.inputs) != 1:
            names = ", ".join(spec.name for spec in program.inputs)
            raise UserError(
                f"'{program.name}' has {len(program.inputs)} inputs ({names}), a task model takes one image"
            )
        image, spec = program.task.input, program.inputs[0]
        expected = (image.channels, *image.size)
        if spec.dtype != "float32" or tuple(spec.shape[1:]) != expected:
            raise UserError(
                f"input '{spec.name}' of '{program.name}' is {spec.dtype} {spec.shape}, "
                f"the task spec says float32 (N, C, H, W) = (N, {', '.join(map(str, expected))})",
                hint="make [input] channels and size in the task spec agree with the model",
            )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        assert program.task is not None
        image = program.task.input
        graph = program.graph
        placeholder = next(node for node in graph.graph.nodes if node.op == "placeholder")
        users = list(placeholder.users)
        readers = [user for user in users if not is_call(user, {_A.sym_size.int})]
        reverse = image.color == "rgb"
        in_weight = reverse and _reverse_in_weights(graph, readers)
        factor = torch.tensor([image.scale / std for std in image.std], dtype=torch.float64)
        shift = torch.tensor(
            [-mean / std for mean, std in zip(image.mean, image.std, strict=True)], dtype=torch.float64
        )
        if in_weight:
            factor, shift = factor.flip(0), shift.flip(0)
        value = _insert(graph, placeholder, image, factor, shift, reverse=reverse and not in_weight)
        # Reads of a size move too: they mean NCHW.
        for user in users:
            user.replace_input_with(placeholder, value)
        clean(graph)
        spec = program.inputs[0]
        height, width = image.size
        after = replace(
            program,
            inputs=(
                replace(spec, name="image", dtype=image.dtype, shape=(spec.shape[0], height, width, image.channels)),
            ),
        )
        where = "the first convolution's weight" if in_weight else "an index" if reverse else "no change"
        record = Record(
            stage=self.name,
            summary=f"input is now the raw {image.dtype} image (N, {height}, {width}, {image.channels}); "
            f"colour order: {where}",
            changed=1,
        )
        return PassResult(program=after.recorded(record), interface_changed=True)


def _reverse_in_weights(graph: fx.GraphModule, readers: list[fx.Node]) -> bool:
    """Reverses the first convolutions' input channels, if convolutions alone read the input and own their weights."""
    weights: list[fx.Node] = []
    for reader in readers:
        weight = reader.args[1] if is_call(reader, CONV) else None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or argument(reader, 6, "groups", 1) != 1:
            return False
        same = [node for node in graph.graph.nodes if node.op == "get_attr" and node.target == weight.target]
        if {user for node in same for user in node.users} != {reader}:
            return False
        weights.append(weight)
    for weight in weights:
        store_parameter(graph, str(weight.target), read_tensor(graph, weight).flip(1))
    return bool(weights)


def _insert(
    graph: fx.GraphModule,
    placeholder: fx.Node,
    image: ImageInput,
    factor: torch.Tensor,
    shift: torch.Tensor,
    *,
    reverse: bool,
) -> fx.Node:
    shape = (1, image.channels, 1, 1)
    calls = graph.graph
    store_buffer(graph, "preprocess_factor", factor.float().reshape(shape))
    store_buffer(graph, "preprocess_shift", shift.float().reshape(shape))
    last = [node for node in calls.nodes if node.op == "placeholder"][-1]
    with calls.inserting_after(last):
        value = calls.call_function(_A.to.dtype, (placeholder, torch.float32))
    with calls.inserting_after(value):
        value = calls.call_function(_A.permute.default, (value, [0, 3, 1, 2]))
    if reverse:
        with calls.inserting_after(value):
            value = calls.call_function(_A.flip.default, (value, [1]))
    if bool((factor != 1).any()):
        with calls.inserting_after(value):
            node = calls.get_attr("preprocess_factor")
        with calls.inserting_after(node):
            value = calls.call_function(_A.mul.Tensor, (value, node))
    if bool((shift != 0).any()):
        with calls.inserting_after(value):
            node = calls.get_attr("preprocess_shift")
        with calls.inserting_after(node):
            value = calls.call_function(_A.add.Tensor, (value, node))
    return value
