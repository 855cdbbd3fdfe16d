"""Folds batch norm into the layer before it, and drops dropout: the last step before quantization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edgekit.errors import UserError
from edgekit.passes.aten import (
    BATCH_NORM,
    CONV,
    CONV_TRANSPOSE,
    DROPOUT,
    LINEAR,
    argument,
    beside,
    clean,
    is_call,
    read_tensor,
    set_argument,
    store_buffer,
    store_parameter,
)
from edgekit.passes.contract import PassContext, PassResult
from edgekit.program import Program, Record, Skipped

__all__ = ["FoldBatchNorm"]

_A = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm:
    """Batch norm in inference form becomes part of the weight and bias of the convolution or linear before it.

    Where none stands directly before it (pre-activation networks, DenseNet), the batch norm becomes one multiplication
    and one addition per channel, so that no later stage sees a batch norm.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2, equation 14.
    """

    name: str = "fold-batchnorm"

    def check(self, program: Program) -> None:
        for node in program.graph.graph.nodes:
            if is_call(node, BATCH_NORM) and argument(node, 5, "training"):
                raise UserError(
                    f"batch norm '{node.name}' is in training mode: its result depends on the other images",
                    hint="call .eval() on the module before exporting it",
                )

    def run(self, program: Program, context: PassContext) -> PassResult:
        program = program.copied()
        graph = program.graph
        folded = affine = dropped = 0
        skipped: list[Skipped] = []
        for node in list(graph.graph.nodes):
            if is_call(node, DROPOUT):
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
                dropped += 1
            elif is_call(node, BATCH_NORM):
                reason = _why_not_into_layer(node)
                if reason is None:
                    _into_layer(graph, node)
                    folded += 1
                else:
                    skipped.append(
                        Skipped(what="batch norm", where=node.name, why=reason + "; became a multiply and an add")
                    )
                    _into_affine(graph, node)
                    affine += 1
        clean(graph)
        record = Record(
            stage=self.name,
            summary=f"{folded} batch norms into layers, {affine} into multiply-adds, {dropped} dropouts dropped",
            changed=folded + affine + dropped,
            skipped=tuple(skipped),
        )
        return PassResult(program=program.recorded(record))


def _why_not_into_layer(node: fx.Node) -> str | None:
    source = node.args[0]
    if not isinstance(source, fx.Node) or not is_call(source, {*CONV, *CONV_TRANSPOSE, *LINEAR}):
        return "no convolution or linear stands directly before it"
    if is_call(source, LINEAR) and len(node.meta["val"].shape) != 2:
        return f"its channels are not those of the linear '{source.name}' before it"
    if len(source.users) > 1:
        return f"the layer '{source.name}' before it has {len(source.users)} consumers"
    weight = source.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return f"the weight of '{source.name}' is computed"
    readers = [
        user
        for item in source.graph.nodes
        if item.op == "get_attr" and item.target == weight.target
        for user in item.users
    ]
    if len(readers) > 1:
        return f"the weight of '{source.name}' is shared by {len(readers)} nodes"
    if is_call(source, CONV_TRANSPOSE) and argument(source, 6, "groups", 1) != 1:
        return f"'{source.name}' is a grouped transposed convolution"
    return None


def _statistics(
    graph: fx.GraphModule, node: fx.Node
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    weight, bias, mean, var = (
        read_tensor(graph, item) if isinstance(item, fx.Node) else None
        for item in (argument(node, 1, "weight"), argument(node, 2, "bias"), node.args[3], node.args[4])
    )
    if mean is None or var is None:
        raise UserError(
            f"batch norm '{node.name}' has no running statistics", hint="train it with track_running_stats=True"
        )
    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    return weight, bias, mean, var, float(argument(node, 7, "eps", 1e-5))


def _into_layer(graph: fx.GraphModule, node: fx.Node) -> None:
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    weight_node, bias_node = layer.args[1], argument(layer, 2, "bias")
    assert isinstance(weight_node, fx.Node)
    bias = read_tensor(graph, bias_node) if isinstance(bias_node, fx.Node) else None
    gamma, beta, mean, var, eps = _statistics(graph, node)
    # In float64: folding must not cost the accuracy that calibration later measures.
    fused_weight, fused_bias = fuse_conv_bn_weights(
        read_tensor(graph, weight_node).double(),
        None if bias is None else bias.double(),
        mean.double(),
        var.double(),
        eps,
        gamma.double(),
        beta.double(),
        transpose=is_call(layer, CONV_TRANSPOSE),
    )
    dtype = mean.dtype
    store_parameter(graph, str(weight_node.target), fused_weight.to(dtype))
    # A name of the layer's own: its old bias may be another layer's too.
    name = beside(str(weight_node.target), f"{layer.name}_bias")
    store_parameter(graph, name, fused_bias.to(dtype))
    with graph.graph.inserting_before(layer):
        new_bias = graph.graph.get_attr(name)
    layer.kwargs = {key: value for key, value in layer.kwargs.items() if key != "bias"}
    set_argument(layer, 2, new_bias)
    node.replace_all_uses_with(layer)
    graph.graph.erase_node(node)


def _into_affine(graph: fx.GraphModule, node: fx.Node) -> None:
    gamma, beta, mean, var, eps = _statistics(graph, node)
    factor = gamma.double() / torch.sqrt(var.double() + eps)
    shift = beta.double() - mean.double() * factor
    source = node.args[0]
    assert isinstance(source, fx.Node)
    rank = len(node.meta["val"].shape)
    shape = [1, -1, *([1] * (rank - 2))]
    store_buffer(graph, f"{node.name}_factor", factor.to(mean.dtype).reshape(shape))
    store_buffer(graph, f"{node.name}_shift", shift.to(mean.dtype).reshape(shape))
    with graph.graph.inserting_before(node):
        product = graph.graph.call_function(_A.mul.Tensor, (source, graph.graph.get_attr(f"{node.name}_factor")))
        total = graph.graph.call_function(_A.add.Tensor, (product, graph.graph.get_attr(f"{node.name}_shift")))
    node.replace_all_uses_with(total)
    graph.graph.erase_node(node)
