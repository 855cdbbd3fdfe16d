"""One spelling for each thing: the graphs that passes see differ in the model, not in how it was exported.

Before writes are removed: wrappers that only switch gradients (or switch autocast off) are opened. After: assertions,
copies that only change memory layout and slices of everything go; ``view`` becomes ``reshape``; ``convolution`` and the
inference form of batch norm, which TorchScript and decomposed programs have, become the operators that ``nn.Module``
code gives.
"""

from __future__ import annotations

import operator
import re
from typing import Any

import torch
from torch import fx

from edgekit.errors import ModelError
from edgekit.frontend.aliasing import Facts
from edgekit.frontend.sources import source_line

__all__ = ["canonicalized", "opened"]

aten = torch.ops.aten
_HIGHER = torch.ops.higher_order
_END = 2**63 - 1

_ASSERTIONS = (
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
)
# Nothing writes any more, so a copy is its input.
_COPIES = (
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
    aten.detach.default,
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
)
_CASTS = (
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.device,
    aten.to.other,
    aten._to_copy.default,
    aten.type_as.default,
)
_RESHAPES = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}
_CONV = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}
_CONV_TRANSPOSE = {3: aten.conv_transpose1d.default, 4: aten.conv_transpose2d.input, 5: aten.conv_transpose3d.input}


def opened(module: fx.GraphModule) -> fx.GraphModule:
    """Puts the bodies of ``wrap_with_set_grad_enabled`` and disabled ``wrap_with_autocast`` in their place.

    Raises:
        ModelError: Another higher-order operator (control flow, an enabled autocast).
    """
    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            values[node] = _body(module, graph, node, values)
        elif node.target is operator.getitem and isinstance(values.get(node.args[0]), tuple):
            values[node] = values[node.args[0]][node.args[1]]
        else:
            values[node] = graph.node_copy(node, lambda arg: values[arg])
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    return fx.GraphModule(module, graph)


def _body(module: fx.GraphModule, graph: fx.Graph, node: fx.Node, values: dict[fx.Node, Any]) -> tuple[Any, ...]:
    if node.target is _HIGHER.wrap_with_set_grad_enabled:
        body_at = 1
    elif node.target is _HIGHER.wrap_with_autocast and node.args[2] is False:
        body_at = 4
    elif node.target is _HIGHER.wrap_with_autocast:
        raise ModelError(
            "the model switches autocast on inside forward()",
            hint="remove torch.autocast from forward(); edgekit chooses the precision itself",
        )
    else:
        raise ModelError(
            f"the model holds control flow or another higher-order operator: {node.target}",
            hint="write it without torch.cond, torch.while_loop or torch.utils.checkpoint and export again",
        )
    reference = node.args[body_at]
    body = getattr(module, str(reference.target)) if isinstance(reference, fx.Node) else None
    if not isinstance(body, fx.GraphModule):
        raise ModelError(f"node '{node.name}': the body of {node.target} is missing")
    inner = opened(body)
    operands = [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args[body_at + 1 :]]
    inside: dict[fx.Node, Any] = dict(
        zip((item for item in inner.graph.nodes if item.op == "placeholder"), operands, strict=True)
    )
    for item in inner.graph.nodes:
        if item.op == "output":
            result = fx.map_arg(item.args[0], lambda arg: inside[arg])
            return tuple(result) if isinstance(result, (tuple, list)) else (result,)
        if item.op != "placeholder":
            inside[item] = graph.node_copy(item, lambda arg: inside[arg])
    return ()


def canonicalized(graph: fx.Graph, facts: Facts) -> int:
    """Rewrites a graph without writes in place into the one spelling, and leaves its values in ``meta["val"]``.

    Args:
        graph: From :func:`edgekit.frontend.functional.functionalized`.
        facts: Of this graph.

    Returns:
        How many nodes were changed.
    """
    changed = 0
    for node in list(graph.nodes):
        # Stack traces hold paths of this machine; the export's symbolic values are stale.
        stack, source = node.meta.get("nn_module_stack"), source_line(node.meta.get("stack_trace"))
        node.meta = {"val": facts.values.get(node)}
        if stack is not None:
            node.meta["nn_module_stack"] = stack
        if source:
            node.meta["source"] = source
        if node.op != "call_function":
            continue
        if node.target in _ASSERTIONS:
            graph.erase_node(node)
            changed += 1
            continue
        if node.target in _RESHAPES:
            node.target = _RESHAPES[node.target]
            changed += 1
            continue
        with graph.inserting_before(node):
            other = _other(graph, node, facts)
        if other is not None:
            if not other.meta:
                other.meta = dict(node.meta)
            node.replace_all_uses_with(other)
            graph.erase_node(node)
            changed += 1
    graph.eliminate_dead_code()
    _name_layers(graph)
    graph.lint()
    return changed


def _name_layers(graph: fx.Graph) -> None:
    """Names a layer's node after its weight: ``layer1_0_conv1`` says more in a report than ``conv2d_7``."""
    for node in graph.nodes:
        weight = node.args[1] if node.op == "call_function" and len(node.args) > 1 else None
        if isinstance(weight, fx.Node) and weight.op == "get_attr" and str(weight.target).endswith(".weight"):
            node._rename(re.sub(r"\W", "_", str(weight.target).removesuffix(".weight")))


def _other(graph: fx.Graph, node: fx.Node, facts: Facts) -> fx.Node | None:
    """Returns the node that says the same in the one spelling, or None where ``node`` does."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.target in _COPIES or _useless_cast(node, source):
        return source
    if node.target is aten.slice.Tensor and _everything(node, 1):
        return source
    if node.target is aten.slice_scatter.default and _everything(node, 2) and isinstance(node.args[1], fx.Node):
        return node.args[1]
    if node.target is aten.convolution.default:
        return _convolution(graph, node)
    if (
        node.target is operator.getitem
        and source.target is aten._native_batch_norm_legit_no_training.default
        and node.args[1] == 0
    ):
        x, weight, bias, mean, variance, momentum, epsilon = source.args
        args = (x, weight, bias, mean, variance, False, momentum, epsilon, False)
        return graph.call_function(aten.batch_norm.default, args)
    return None


def _useless_cast(node: fx.Node, source: fx.Node) -> bool:
    before, after = source.meta.get("val"), node.meta.get("val")
    if node.target not in _CASTS or not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    return bool(before.dtype == after.dtype)


def _everything(node: fx.Node, first: int) -> bool:
    """Whether a slice takes all of its dimension; ``first`` is the position of its ``dim`` argument."""
    if node.kwargs:
        return False
    rest = list(node.args[first + 1 :]) + [None, None, 1][len(node.args) - first - 1 :]
    return bool(rest[0] in (None, 0) and rest[1] in (None, _END) and rest[2] == 1)


def _convolution(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
    rank = weight.meta["val"].dim() if isinstance(weight, fx.Node) else 0
    if rank not in _CONV:
        return None
    if transposed:
        return graph.call_function(
            _CONV_TRANSPOSE[rank], (x, weight, bias, stride, padding, output_padding, groups, dilation)
        )
    return graph.call_function(_CONV[rank], (x, weight, bias, stride, padding, dilation, groups))
