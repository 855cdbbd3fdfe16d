"""Finds layers whose output only one other layer reads, through operators that commute with factors per channel."""

from __future__ import annotations

import torch
from torch import fx

from edgekit.passes.aten import COMPUTE, CONV_TRANSPOSE, LINEAR, argument, is_call, read_tensor
from edgekit.passes.equalize.groups import Group, readers, why_not_own
from edgekit.program import Skipped

__all__ = ["find_chains", "upper_bound"]

_A = torch.ops.aten
_HOMOGENEOUS = frozenset({_A.relu.default, _A.leaky_relu.default, _A.prelu.default, _A.clone.default})
_CLAMPS = frozenset({_A.relu6.default, _A.hardtanh.default, _A.clamp.default})
_OTHER_ACTIVATIONS = frozenset(
    {
        _A.silu.default,
        _A.hardswish.default,
        _A.gelu.default,
        _A.elu.default,
        _A.mish.default,
        _A.sigmoid.default,
        _A.hardsigmoid.default,
        _A.tanh.default,
    }
)


def find_chains(graph: fx.GraphModule) -> tuple[list[Group], list[Skipped]]:
    """Returns the chains layer, activation, layer of a graph, and those that must be left, with the reason.

    A chain is a convolution (also transposed, grouped or depthwise) or a linear, then any of ReLU, leaky ReLU, PReLU,
    ReLU6 and clamps from zero up, max-pool, nearest upsampling and padding with zeros, then one layer of the same kind.
    """
    groups: list[Group] = []
    skipped: list[Skipped] = []
    for node in graph.graph.nodes:
        if not is_call(node, COMPUTE):
            continue
        found = _follow(graph, node)
        if isinstance(found, Group):
            groups.append(found)
        elif found is not None:
            skipped.append(Skipped(what="chain", where=node.name, why=found))
    return groups, skipped


def upper_bound(node: fx.Node) -> float | None:
    """Returns where a clamp from zero up ends; None for anything else, infinity for a clamp without an end."""
    if is_call(node, {_A.relu6.default}):
        return 6.0
    if is_call(node, {_A.hardtanh.default}):
        low, high = argument(node, 1, "min_val", -1.0), argument(node, 2, "max_val", 1.0)
    elif is_call(node, {_A.clamp.default}):
        low, high = argument(node, 1, "min"), argument(node, 2, "max")
    else:
        return None
    if low != 0 or (high is not None and not high > 0):
        return None
    return float("inf") if high is None else float(high)


def _follow(graph: fx.GraphModule, producer: fx.Node) -> Group | str | None:
    """Walks from a layer to the next; a reason where the chain must be left, None where there is no chain."""
    between: list[fx.Node] = []
    bounds: list[float] = []
    node = producer
    while True:
        users = readers(node)
        following = [user for user in users if _is_layer_reading(user, node) or _commutes(user, producer)]
        if len(users) != 1:
            names = ", ".join(sorted(user.name for user in users))
            return f"'{node.name}' is read by {names}" if following else None
        (user,) = users
        if _is_layer_reading(user, node):
            break
        if not following:
            ends = any(_is_layer_reading(item, user) for item in user.users)
            if ends and is_call(user, {*_OTHER_ACTIVATIONS, *_CLAMPS}):
                return f"'{user.name}' between it and the next layer does not commute with factors"
            return None
        between.append(user)
        bound = upper_bound(user)
        bounds += [bound] if bound is not None and bound < float("inf") else []
        node = user
    if is_call(producer, LINEAR) != is_call(user, LINEAR):
        return f"'{user.name}' after it is not of its kind"
    why = _why_not(graph, producer) or _why_not(graph, user)
    if why is not None:
        return why
    return Group(
        producer=producer,
        between=tuple(between),
        layers=(user,),
        channels=_outputs(graph, producer),
        bound=min(bounds) if bounds else None,
    )


def _is_layer_reading(user: fx.Node, node: fx.Node) -> bool:
    return is_call(user, COMPUTE) and user.args[0] is node and node not in user.args[1:]


def _commutes(node: fx.Node, producer: fx.Node) -> bool:
    if is_call(node, _HOMOGENEOUS):
        return True
    if is_call(node, _CLAMPS):
        return upper_bound(node) is not None
    if is_call(producer, LINEAR):
        return False
    if is_call(node, {_A.max_pool2d.default, _A.upsample_nearest2d.vec}):
        return True
    if is_call(node, {_A.pad.default, _A.constant_pad_nd.default}):
        mode = argument(node, 2, "mode", "constant") if is_call(node, {_A.pad.default}) else "constant"
        value = argument(node, 3 if is_call(node, {_A.pad.default}) else 2, "value", 0)
        # Pairs from the last dimension backwards: two for images, so that channels are not padded.
        return mode == "constant" and value in (None, 0) and len(argument(node, 1, "pad")) <= 4
    return False


def _why_not(graph: fx.GraphModule, layer: fx.Node) -> str | None:
    why = why_not_own(layer)
    if why is not None:
        return why
    bias = argument(layer, 2, "bias")
    if isinstance(bias, fx.Node) and bias.op != "get_attr":
        return f"the bias of '{layer.name}' is computed"
    if is_call(layer, CONV_TRANSPOSE) and argument(layer, 6, "groups", 1) != 1:
        return f"'{layer.name}' is a grouped transposed convolution"
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    if read_tensor(graph, weight).dtype != torch.float32:
        return f"the weight of '{layer.name}' is not float32"
    return None


def _outputs(graph: fx.GraphModule, layer: fx.Node) -> int:
    weight = layer.args[1]
    assert isinstance(weight, fx.Node)
    return read_tensor(graph, weight).shape[1 if is_call(layer, CONV_TRANSPOSE) else 0]
