"""A quantized program whose steps can be learned, and the way back."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from edgekit.errors import InternalError
from edgekit.passes.aten import is_call, node_facts, read_tensor, store_buffer, store_parameter
from edgekit.passes.qat.groups import Groups, find_groups
from edgekit.passes.qat.step import learned_step, step_gain
from edgekit.passes.quantize.ops import QDQ
from edgekit.program import Program

__all__ = ["baked", "pairs_of", "step_parameters", "trainable"]

_CHANGE = "_change"
_GAIN = "_gain"


def trainable(program: Program) -> Program:
    """Returns a copy of a quantized program in which steps are learned.

    Each scale that may change (:func:`edgekit.passes.qat.groups.find_groups`) is computed from a parameter; scales that
    must be equal are computed from one. Weights and biases are parameters already. The copy answers as the program
    does, to the bit, until it is trained.

    Args:
        program: Quantized; left as it is.
    """
    program = program.copied()
    graph = program.graph
    groups, facts = pairs_of(program)
    # Behind the inputs, where nothing is read yet.
    first = next(node for node in graph.graph.nodes if node.op != "placeholder")
    for members in groups.learned:
        scale = members[0].args[1]
        assert isinstance(scale, fx.Node)
        name, start = str(scale.target), read_tensor(graph, scale)
        store_parameter(graph, f"{name}{_CHANGE}", torch.zeros_like(start))
        store_buffer(graph, f"{name}{_GAIN}", _gain(graph, members[0], facts))
        with graph.graph.inserting_before(first):
            tensors = [graph.graph.get_attr(item) for item in (name, f"{name}{_CHANGE}", f"{name}{_GAIN}")]
            step = graph.graph.call_function(learned_step, tuple(tensors))
        for pair in members:
            pair.args = (pair.args[0], step, *pair.args[2:])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return program


def pairs_of(program: Program) -> tuple[Groups, dict[fx.Node, torch.Tensor]]:
    """Returns the pairs of a quantized program by what may be learned, and the shapes of its nodes."""
    one_image = [
        torch.zeros([1 if size is None else size for size in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in program.inputs
    ]
    facts = node_facts(program.graph, *one_image)
    return find_groups(program.graph, facts), facts


def step_parameters(program: Program) -> tuple[str, ...]:
    """Returns the names of the parameters that stand for steps, of a program from :func:`trainable`."""
    return tuple(str(change.target) for _, change, _ in map(_tensors, _steps(program.graph)))


def baked(trained: Program, quantized: Program) -> Program:
    """Returns the quantized program with what was learned: parameters, and steps as the plain numbers that they are.

    The graph is that of ``quantized``, so export and engines see nothing new; the answers are those of ``trained``, to
    the bit.

    Args:
        trained: From :func:`trainable` of ``quantized``, trained.
        quantized: Left as it is.

    Raises:
        InternalError: The programs do not belong together.
    """
    result = quantized.copied()
    pairs = {node.name: node for node in result.graph.graph.nodes if is_call(node, {QDQ})}
    learned = dict(trained.graph.named_parameters(remove_duplicate=False))
    for name, parameter in result.graph.named_parameters(remove_duplicate=False):
        if name not in learned or learned[name].shape != parameter.shape:
            raise InternalError(f"the trained program has no parameter '{name}' of this shape")
        with torch.no_grad():
            parameter.copy_(learned[name])
    for step in _steps(trained.graph):
        start, change, gain = (read_tensor(trained.graph, item).detach() for item in _tensors(step))
        for user in step.users:
            if user.name not in pairs:
                raise InternalError(f"the quantized program has no pair '{user.name}'")
            scale = pairs[user.name].args[1]
            assert isinstance(scale, fx.Node)
            # In place: the order of the tensors is part of what is exported.
            read_tensor(result.graph, scale).copy_(learned_step(start, change, gain))
    return replace(result, history=trained.history)


def _steps(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if is_call(node, {learned_step})]


def _tensors(step: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
    start, change, gain = step.args
    assert isinstance(start, fx.Node)
    assert isinstance(change, fx.Node)
    assert isinstance(gain, fx.Node)
    return start, change, gain


def _gain(graph: fx.GraphModule, pair: fx.Node, facts: dict[fx.Node, torch.Tensor]) -> torch.Tensor:
    source, scale, zero_point, _, qmin, qmax = pair.args
    assert isinstance(source, fx.Node)
    assert isinstance(scale, fx.Node)
    assert isinstance(zero_point, fx.Node)
    start, zeros = read_tensor(graph, scale), read_tensor(graph, zero_point)
    shape = facts[source].shape if source in facts else read_tensor(graph, source).shape
    # One step a channel, or one for all; an activation was looked at for one image.
    values = shape.numel() // start.numel()
    low, high = int(zeros.min()), int(zeros.max())
    levels = max(int(qmax) - low, high - int(qmin))  # type: ignore[arg-type]
    return step_gain(start, values=values, levels=levels)
