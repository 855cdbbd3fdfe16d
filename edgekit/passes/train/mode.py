"""Training mode and inference mode of an exported graph.

``torch.export`` bakes the mode of a module into its operators: ``batch_norm(..., training=False)``,
``dropout(..., train=False)``. So a graph has no ``train()``; its operators' arguments are switched here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import fx, nn

from edgekit.config import nearest
from edgekit.errors import UserError
from edgekit.passes.aten import BATCH_NORM, argument, is_call, set_argument
from edgekit.passes.train.norms import batch_norm_over_processes

__all__ = ["add_features", "feature_nodes", "has_batch_norm", "inference_view", "tensors_of", "training_copy"]

_A = torch.ops.aten
# Where an operator is told that it trains. Its probabilities stay as exported.
_FLAGS: Mapping[Callable[..., Any], tuple[int, str]] = {
    _A.dropout.default: (2, "train"),
    _A.feature_dropout.default: (2, "train"),
    _A.alpha_dropout.default: (2, "train"),
    _A.feature_alpha_dropout.default: (2, "train"),
    _A.native_dropout.default: (2, "train"),
    _A.rrelu.default: (3, "training"),
    _A.lstm.input: (6, "train"),
    _A.lstm.data: (7, "train"),
    _A.gru.input: (6, "train"),
    _A.gru.data: (7, "train"),
    _A.rnn_tanh.input: (6, "train"),
    _A.rnn_relu.input: (6, "train"),
}
# torch's default. Modules with momentum=None (a plain mean over all batches) are exported with 0: never updated.
_MOMENTUM = 0.1
# The results of these are not looked at by their own gradient, so that a ReLU may write over them.
_OVERWRITABLE = frozenset({_A.batch_norm.default, _A.add.Tensor, _A.conv2d.default})


def training_copy(
    graph: fx.GraphModule, *, batch_norm: Literal["live", "frozen"], features: Sequence[str] = (), processes: int = 1
) -> fx.GraphModule:
    """Returns a copy in training mode, which shares no tensor with ``graph``.

    Dropout and recurrent layers train; attention keeps the dropout that it was exported with (none, for a module in
    inference mode). A ReLU writes over what it alone reads, which saves memory and changes no value.

    Args:
        graph: In inference mode.
        batch_norm: ``live`` or ``frozen``; see :class:`~edgekit.passes.train.options.TrainOptions`.
        features: Names of nodes whose values come as further outputs, after the graph's own.
        processes: Live batch norm takes its statistics over so many of ``torch.distributed``.

    Raises:
        UserError: No node has the name of a feature.
    """
    copied = copy.deepcopy(graph)
    nodes = {node.name: node for node in copied.graph.nodes}
    for node in nodes.values():
        if node.op == "call_function" and node.target in _FLAGS:
            index, name = _FLAGS[node.target]
            _set_flag(node, index, name, True)
        elif is_call(node, BATCH_NORM) and batch_norm == "live":
            _set_flag(node, 5, "training", True)
            if not argument(node, 6, "momentum"):
                _set_flag(node, 6, "momentum", _MOMENTUM)
            if processes > 1:
                node.target = batch_norm_over_processes
    wanted = feature_nodes(copied, features)
    for node in nodes.values():
        if _writes_over(node, wanted):
            node.target = _A.relu_.default
    add_features(copied, features)
    return copied


def add_features(graph: fx.GraphModule, names: Sequence[str]) -> None:
    """Makes the values of nodes further outputs of a graph, after its own.

    Raises:
        UserError: No node has the name of a feature.
    """
    wanted = feature_nodes(graph, names)
    output = next(iter(reversed(graph.graph.nodes)))
    own = output.args[0]
    output.args = ((*(own if isinstance(own, (tuple, list)) else (own,)), *wanted),)
    graph.recompile()


def inference_view(trained: fx.GraphModule, graph: fx.GraphModule) -> fx.GraphModule:
    """Returns ``graph`` as it was given, with the tensors of ``trained`` (its training copy), which it shares."""
    nodes: dict[fx.Node, fx.Node] = {}
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph.graph, nodes))
    return fx.GraphModule(trained, copied)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns all parameters and buffers by their dotted names; two names of one tensor are both there."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def has_batch_norm(graph: fx.GraphModule) -> bool:
    """Whether live batch norm makes a difference."""
    return any(is_call(node, BATCH_NORM) for node in graph.graph.nodes)


def feature_nodes(graph: fx.GraphModule, names: Sequence[str]) -> list[fx.Node]:
    """Returns the nodes of these names.

    Raises:
        UserError: A name is not there; the hint names the nearest.
    """
    nodes = {node.name: node for node in graph.graph.nodes if node.op == "call_function"}
    for name in names:
        if name not in nodes:
            raise UserError(f"the graph has no node '{name}'", hint=nearest(name, nodes))
    return [nodes[name] for name in names]


def _set_flag(node: fx.Node, index: int, name: str, value: Any) -> None:
    if name in node.kwargs:
        node.kwargs = {**node.kwargs, name: value}
    else:
        set_argument(node, index, value)


def _writes_over(node: fx.Node, kept: Sequence[fx.Node]) -> bool:
    if not is_call(node, {_A.relu.default}):
        return False
    source = node.args[0]
    return is_call(source, _OVERWRITABLE) and list(source.users) == [node] and source not in kept  # type: ignore[union-attr]
