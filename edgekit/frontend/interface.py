"""What an exported program takes and gives: flat inputs and outputs, their names and shapes."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgekit.errors import ModelError
from edgekit.tensorspec import TensorSpec

__all__ = ["flat_graph", "other_dynamic", "spec_of"]


def flat_graph(exported: ExportedProgram, *, single_input: str | None) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Returns the program as a graph module with flat tensors in and a flat tuple of tensors out, without guards.

    Args:
        exported: Any exported program; parameters and buffers come to hang on the result by their dotted names.
        single_input: Name for the input where there is exactly one; None keeps the names of ``forward()``'s arguments.

    Returns:
        The graph module, and a name for each output: the keys under which the model returns it, else ``output``,
            ``output_1``, ...
    """
    module = exported.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise ModelError(f"torch.export gave a {type(module).__name__}, expected a graph")
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    outputs: list[Any] = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            name = single_input if single_input is not None and len(placeholders) == 1 else node.name
            values[node] = graph.placeholder(name)
            values[node].meta = dict(node.meta)
        elif node.op == "output":
            outputs = pytree.tree_leaves(node.args[0], is_leaf=lambda leaf: leaf is None)
        else:
            values[node] = graph.node_copy(node, lambda arg: values[arg])
    kept = [isinstance(item, fx.Node) for item in outputs]
    graph.output(tuple(values[item] for item in outputs if isinstance(item, fx.Node)))
    return fx.GraphModule(module, graph), _output_names(exported, kept)


def other_dynamic(exported: ExportedProgram) -> str | None:
    """Returns why a dynamic batch cannot be declared (an output with another dynamic size), or None where it can."""
    node = next(node for node in exported.graph.nodes if node.op == "output")
    for item in pytree.tree_leaves(node.args[0]):
        value = item.meta.get("val") if isinstance(item, fx.Node) else None
        if not isinstance(value, torch.Tensor):
            continue
        if (
            value.dim() == 0
            or isinstance(value.shape[0], int)
            or not all(isinstance(size, int) for size in value.shape[1:])
        ):
            return f"an output of shape {list(map(str, value.shape))} does not have the batch first, and only there"
    return None


def spec_of(name: str, value: torch.Tensor, dynamic: bool) -> TensorSpec:
    """Describes one input or output from an example of it."""
    shape: tuple[int | None, ...] = tuple(value.shape)
    return TensorSpec(
        name=name, dtype=str(value.dtype).removeprefix("torch."), shape=(None, *shape[1:]) if dynamic else shape
    )


def _output_names(exported: ExportedProgram, kept: list[bool]) -> tuple[str, ...]:
    spec = exported.call_spec.out_spec
    if spec is None or spec.num_leaves != len(kept):
        return _numbered(sum(kept))
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(len(kept))), spec))
    chosen = [path for (path, _), keep in zip(paths, kept, strict=True) if keep]
    if not all(any(not isinstance(key, pytree.SequenceKey) for key in path) for path in chosen):
        return _numbered(len(chosen))
    names = [re.sub(r"\W+", "_", "_".join(_word(key) for key in path)) for path in chosen]
    return tuple(names) if len(set(names)) == len(names) else _numbered(len(chosen))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple("output" if index == 0 else f"output_{index}" for index in range(count))


def _word(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
