"""LSTM and GRU: hidden units go, in every gate and direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, Value, counted

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_STATE = "its state has no channels of its own"


def _lstm(flow: Flow, node: fx.Node) -> list[Value] | None:
    return _recurrent(flow, node, gates=4)


def _gru(flow: Flow, node: fx.Node) -> list[Value] | None:
    """With zero weights a GRU's new state is 0 and its gate one half: a state that begins at zero stays there."""
    return _recurrent(flow, node, gates=3)


def _recurrent(flow: Flow, node: fx.Node, *, gates: int) -> list[Value] | None:
    """Source: the gates' order and shapes are those of torch.nn.LSTM and torch.nn.GRU (weight_ih: (gates * h, in))."""
    call = named(node)
    states = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
    parameters, biased = call["params"], call["has_biases"]
    layers, directions = call["num_layers"], 2 if call["bidirectional"] else 1
    per_layer = 4 if biased else 2
    if len(parameters) != layers * directions * per_layer:
        return None  # projections
    size = flow.shape(parameters[1])[1]
    hidden = Axis(labels=flow.labels.fresh(size))
    for state in states:
        value = flow.value(state)
        flow.same(value[2], hidden, node, _STATE)
        for axis in value[:2]:
            flow.freeze(axis, node, _STATE)
    inputs = flow.value(call["input"])[2]
    steps = flow.per_image(call["input"]) // flow.shape(call["input"])[2]
    for layer in range(layers):
        for direction in range(directions):
            first = (layer * directions + direction) * per_layer
            _cell(flow, node, parameters[first : first + per_layer], inputs, hidden, gates, steps)
        inputs = Axis(labels=np.tile(hidden.labels, directions))
    sequence = flow.value(call["input"])
    states_out: list[Value] = [(None, None, hidden) for _ in states]
    return [(sequence[0], sequence[1], inputs), *states_out]


def _cell(
    flow: Flow, node: fx.Node, parameters: list[Any], inputs: Axis | None, hidden: Axis, gates: int, steps: int
) -> None:
    rows = Axis(labels=np.tile(hidden.labels, gates))
    from_input = flow.parameter(parameters[0], "out", "in")
    from_state = flow.parameter(parameters[1], "out", "in")
    flow.sum_over(inputs, from_input[1], node)
    flow.same(from_input[0], rows, node, _STATE)
    flow.same(from_state[0], rows, node, _STATE)
    flow.same(from_state[1], hidden, node, _STATE)
    for bias in parameters[2:]:
        flow.same(flow.parameter(bias, "along")[0], rows, node, _STATE)
    width = flow.shape(parameters[0])[1]
    flow.spend(node, steps, rows, counted(inputs, width))
    flow.spend(node, steps, rows, hidden)


FAMILIES = (
    Family(title="LSTM", operators=(_A.lstm.input,), rule=_lstm),
    Family(title="GRU", operators=(_A.gru.input,), rule=_gru),
)
