"""Words for the ATen graph: operator families, and reading and writing the tensors that hang on it.

Every pass that matches operators takes its sets from here, so that a new overload is added in one place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx, nn

from edgekit.errors import InternalError

__all__ = [
    "ACTIVATIONS_FUSED",
    "ATTENTION",
    "BATCH_NORM",
    "COMPUTE",
    "CONV",
    "CONV_TRANSPOSE",
    "DROPOUT",
    "GROUP_NORM",
    "LINEAR",
    "MATMUL",
    "NORM",
    "POOL_AVERAGE",
    "RECURRENT",
    "SHAPE_ONLY",
    "SPLITS",
    "argument",
    "beside",
    "clean",
    "is_call",
    "layer_name",
    "named_tensor",
    "node_facts",
    "operator_name",
    "origin_name",
    "read_tensor",
    "set_argument",
    "share_parameter",
    "store_buffer",
    "store_parameter",
    "tensor_inputs",
]

_A = torch.ops.aten
Operators = Collection[Callable[..., Any]]

CONV: Operators = frozenset(
    {_A.conv1d.default, _A.conv2d.default, _A.conv3d.default, _A.conv1d.padding, _A.conv2d.padding}
)
CONV_TRANSPOSE: Operators = frozenset({_A.conv_transpose1d.default, _A.conv_transpose2d.input})
LINEAR: Operators = frozenset({_A.linear.default})
MATMUL: Operators = frozenset({_A.matmul.default, _A.bmm.default})
ATTENTION: Operators = frozenset({_A.scaled_dot_product_attention.default})
COMPUTE: Operators = frozenset({*CONV, *CONV_TRANSPOSE, *LINEAR})
BATCH_NORM: Operators = frozenset({_A.batch_norm.default})
GROUP_NORM: Operators = frozenset({_A.group_norm.default})
NORM: Operators = frozenset({*GROUP_NORM, _A.layer_norm.default, _A.instance_norm.default, _A.rms_norm.default})
RECURRENT: Operators = frozenset(
    {_A.lstm.input, _A.gru.input, _A.rnn_tanh.input, _A.rnn_relu.input, _A.lstm_cell.default, _A.gru_cell.default}
)
DROPOUT: Operators = frozenset({_A.dropout.default, _A.feature_dropout.default, _A.alpha_dropout.default})
# Activations that integer kernels fuse into the convolution before them.
ACTIVATIONS_FUSED: Operators = frozenset({_A.relu.default, _A.relu6.default, _A.hardtanh.default, _A.clamp.default})
POOL_AVERAGE: Operators = frozenset({_A.mean.dim, _A.adaptive_avg_pool2d.default, _A.avg_pool2d.default})
SPLITS: Operators = frozenset({_A.chunk.default, _A.split.Tensor, _A.split_with_sizes.default, _A.unbind.int})
# Operators that only move or select values: quantizing before or after them gives the same numbers. Padding belongs
# here because every range includes zero, so zero is exact.
SHAPE_ONLY: Operators = frozenset(
    {
        _A.max_pool2d.default,
        _A.view.default,
        _A.reshape.default,
        _A.flatten.using_ints,
        _A.permute.default,
        _A.transpose.int,
        _A.squeeze.dim,
        _A.squeeze.dims,
        _A.unsqueeze.default,
        _A.contiguous.default,
        _A.clone.default,
        _A.upsample_nearest2d.vec,
        _A.slice.Tensor,
        _A.select.int,
        _A.expand.default,
        operator.getitem,
        *SPLITS,
    }
)


def is_call(node: object, operators: Operators) -> bool:
    """Whether ``node`` is a call of one of ``operators``."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in operators


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """Returns an operator's argument, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def set_argument(node: fx.Node, index: int, value: Any) -> None:
    """Replaces a positional argument, filling the optional ones before it with None."""
    args = [*node.args, *([None] * (index + 1 - len(node.args)))]
    args[index] = value
    node.args = tuple(args)


def tensor_inputs(node: fx.Node, facts: dict[fx.Node, torch.Tensor]) -> list[fx.Node]:
    """Returns the inputs of a node that are float activations (not parameters, not shapes)."""
    return [
        item
        for item in node.all_input_nodes
        if item.op != "get_attr" and item in facts and facts[item].is_floating_point()
    ]


def read_tensor(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """Returns the parameter or buffer behind a ``get_attr`` node.

    Raises:
        InternalError: The node is no ``get_attr``, or nothing hangs there.
    """
    if node.op != "get_attr":
        raise InternalError(f"node '{node.name}' is '{node.op}', expected 'get_attr'")
    return named_tensor(graph, str(node.target))


def named_tensor(graph: fx.GraphModule, name: str) -> torch.Tensor:
    """Returns the parameter or buffer under a dotted name.

    Raises:
        InternalError: What hangs there is no tensor.
    """
    owner: Any = graph
    for part in name.split("."):
        owner = getattr(owner, part)
    if not isinstance(owner, torch.Tensor):
        raise InternalError(f"'{name}' is a {type(owner).__name__}, expected a tensor")
    return owner


def store_parameter(graph: fx.GraphModule, name: str, value: torch.Tensor) -> nn.Parameter:
    """Hangs a copy as a trainable parameter on the graph under a dotted name, replacing what is there; returns it."""
    made = nn.Parameter(value.detach().clone(), requires_grad=value.is_floating_point())
    share_parameter(graph, name, made)
    return made


def share_parameter(graph: fx.GraphModule, name: str, parameter: nn.Parameter) -> None:
    """Hangs a parameter itself on the graph under one more dotted name, replacing what is there."""
    owner, leaf = _owner(graph, name)
    _forget(owner, leaf)
    owner.register_parameter(leaf, parameter)


def store_buffer(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Hangs a buffer on the graph under a dotted name, replacing what is there."""
    owner, leaf = _owner(graph, name)
    _forget(owner, leaf)
    owner.register_buffer(leaf, value.detach().clone())


def beside(name: str, leaf: str) -> str:
    """Returns the dotted name of ``leaf`` in the module that owns the tensor ``name``.

    >>> beside("block.attention.in_proj_weight", "linear_bias")
    'block.attention.linear_bias'
    """
    owner, dot, _ = name.rpartition(".")
    return f"{owner}{dot}{leaf}"


def layer_name(node: fx.Node) -> str:
    """Returns what people and engines call a compute layer: the dotted name of the module that owns its weight.

    Layers whose weight is computed or shared are called by it too; nothing but the node's name is unique.
    """
    weight = node.args[1] if len(node.args) > 1 else None
    while isinstance(weight, fx.Node) and weight.op == "call_function" and weight.args:
        weight = weight.args[0]  # a weight behind a quantize-dequantize pair
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return node.name
    return str(weight.target).removesuffix(".weight")


def operator_name(node: fx.Node) -> str:
    """Returns an operator's bare name: ``layer_norm`` of ``aten.layer_norm.default``."""
    schema = getattr(node.target, "_schema", None)
    name = getattr(node.target, "__name__", str(node.target)) if schema is None else str(schema.name)
    return name.rpartition("::")[2]


def origin_name(node: fx.Node) -> str:
    """Returns the dotted name of the module that a node comes from; where that is the model itself, the node's name."""
    if is_call(node, COMPUTE):
        return layer_name(node)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    module = str(stack[-1][0]) if stack else ""
    return module if module and not module.startswith("_") else node.name


def clean(graph: fx.GraphModule) -> None:
    """Removes dead nodes and the tensors that no node reads any more, then recompiles."""
    graph.graph.eliminate_dead_code()
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [
        *dict(graph.named_parameters(remove_duplicate=False)),
        *dict(graph.named_buffers(remove_duplicate=False)),
    ]:
        if name not in used:
            owner, leaf = _owner(graph, name)
            delattr(owner, leaf)
    graph.graph.lint()
    graph.recompile()


def node_facts(graph: fx.GraphModule, *inputs: torch.Tensor) -> dict[fx.Node, torch.Tensor]:
    """Runs the graph once on meta tensors and returns, for each node with a tensor result, its shape and dtype.

    Shapes stored at export time go stale after surgery, so passes ask for fresh ones.
    """
    facts: dict[fx.Node, torch.Tensor] = {}

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            result = super().run_node(node)
            if isinstance(result, torch.Tensor):
                facts[node] = result.detach().to("meta")
            return result

    with torch.no_grad():
        Watcher(graph).run(*inputs)
    return facts


def _owner(graph: fx.GraphModule, name: str) -> tuple[nn.Module, str]:
    owner: nn.Module = graph
    *parts, leaf = name.split(".")
    for part in parts:
        if not isinstance(getattr(owner, part, None), nn.Module):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    return owner, leaf


def _forget(owner: nn.Module, leaf: str) -> None:
    for table in (owner._parameters, owner._buffers):
        table.pop(leaf, None)
