"""Tiny hand-made ONNX graphs for the rules of TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekit.backends.base import PortableGraph


def node(operator: str, inputs: Sequence[str], name: str, attributes: Mapping[str, Any] | None = None) -> NodeProto:
    return helper.make_node(
        operator, list(inputs), [name], name=name, **({} if attributes is None else dict(attributes))
    )


def graph_of(
    nodes: Sequence[NodeProto],
    *,
    constants: Mapping[str, Any] | None = None,
    input_type: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = (1, 3, 8, 8),
    output_type: int = TensorProto.FLOAT,
    opset: int = 20,
    ir_version: int = 10,
    domains: Sequence[str] = (),
) -> PortableGraph:
    """A graph from input ``x`` to the last node's output."""
    stored = {} if constants is None else constants
    output = helper.make_tensor_value_info(nodes[-1].output[0], output_type, None)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", input_type, list(shape))],
        [output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return PortableGraph(data=model.SerializeToString(), precision="int8", inputs=(), outputs=())
