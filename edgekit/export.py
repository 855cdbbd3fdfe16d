"""Program -> portable graph: the only door from torch to ONNX."""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx
import torch
from onnxscript import opset20
from torch import fx

from edgekit.backends.base import PortableGraph
from edgekit.backends.batch import LARGEST_BATCH
from edgekit.errors import StageError
from edgekit.origins import carry_origins, read_origins
from edgekit.passes.aten import GROUP_NORM, argument, clean, is_call, node_facts, read_tensor, store_buffer
from edgekit.passes.quantize.ops import DEQUANTIZE, QDQ
from edgekit.program import Program
from edgekit.targets import Portable

__all__ = ["export_portable"]

_A = torch.ops.aten
_ATTENTION = _A.scaled_dot_product_attention.default


def _onnx_qdq(x: Any, scale: Any, zero_point: Any, axis: int, qmin: int, qmax: int) -> Any:
    if axis < 0:
        return opset20.DequantizeLinear(opset20.QuantizeLinear(x, scale, zero_point), scale, zero_point)
    stored = opset20.QuantizeLinear(x, scale, zero_point, axis=axis)
    return opset20.DequantizeLinear(stored, scale, zero_point, axis=axis)


def _onnx_dequantize(q: Any, scale: Any, zero_point: Any, axis: int) -> Any:
    return opset20.DequantizeLinear(q, scale, zero_point, axis=axis)


_TRANSLATIONS = {
    QDQ: _onnx_qdq,
    DEQUANTIZE: _onnx_dequantize,
}


def export_portable(program: Program, *, portable: Portable, precision: str, dynamic_batch: bool) -> PortableGraph:
    """Writes a program as a strongly typed ONNX graph.

    Weights behind per-channel ``edgekit::qdq`` become int8 initializers followed by DequantizeLinear, so the file
    shrinks fourfold. The bytes depend on the program alone: no path, time or run-dependent name is inside. Compute
    nodes bear the dotted name of the module that owns their weight.

    Args:
        program: Folded, and quantized where ``precision`` is ``int8``.
        portable: The target's limits on opset and IR version.
        precision: What the graph is for; recorded, not enforced.
        dynamic_batch: Leave the batch open; otherwise it is 1.

    Raises:
        StageError: ONNX cannot say an operator of the program, or the checker refuses the result.
    """
    if dynamic_batch and not program.dynamic_batch:
        raise StageError(
            f"'{program.name}' was exported for a batch of {program.inputs[0].shape[0]}, a dynamic one was asked for",
            hint="compile without --dynamic-batch, or mend the model so that torch.export keeps the batch dynamic",
        )
    batch = 1 if not program.dynamic_batch or not dynamic_batch else 2
    example = tuple(
        torch.zeros([batch if size is None else size for size in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in program.inputs
    )
    graph = _frozen(program.graph)
    _give_attention_heads(graph, example)
    _spell_out_group_norms(graph, example)
    _spell_out_hard_sigmoids(graph)
    dims = tuple({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)} for _ in example) if dynamic_batch else None
    try:
        with torch.no_grad(), _quiet():
            exported = torch.export.export(graph, example, dynamic_shapes=dims)
            carry_origins(graph, exported.graph)
            result = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                opset_version=portable.opset,
                input_names=[spec.name for spec in program.inputs],
                output_names=[spec.name for spec in program.outputs],
                custom_translation_table=_TRANSLATIONS,  # type: ignore[arg-type]
                optimize=True,
            )
    except Exception as error:
        # torch.onnx raises many unrelated classes; each means that this program has no ONNX form.
        raise StageError(
            f"'{program.name}': export to ONNX failed: {_reason(error)}",
            hint="replace the operator in the model, or leave this part of it to the application",
        ) from error
    assert result is not None
    model = result.model_proto
    origins = read_origins(model)
    _normalise(model, portable, program)
    _read_sizes_after_cast(model)
    quantized, renamed = _name_layers(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise StageError(f"'{program.name}': the exported ONNX graph is not valid: {_first_line(error)}") from error
    shape_of = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
    inputs, outputs = (
        tuple(replace(shape_of[item.name], shape=_shape(item)) for item in items)
        for items in (model.graph.input, model.graph.output)
    )
    return PortableGraph(
        data=model.SerializeToString(deterministic=True),
        precision=precision,
        inputs=inputs,
        outputs=outputs,
        quantized_layers=quantized,
        origins={renamed.get(name, name): origin for name, origin in origins.items()},
    )


def _frozen(graph: fx.GraphModule) -> fx.GraphModule:
    """Returns a copy whose quantized weights are stored integers."""
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        weight = node.args[0] if is_call(node, {QDQ}) else None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        _, scale, zero_point, axis, qmin, qmax = node.args
        value, step, zero = (read_tensor(graph, item).detach() for item in (weight, scale, zero_point))
        shape = [1] * value.ndim
        if axis >= 0:
            shape[axis] = -1
        stored = torch.clamp(torch.round(value / step.reshape(shape)) + zero.reshape(shape), qmin, qmax).to(zero.dtype)
        name = f"{weight.target}_quantized"
        store_buffer(graph, name, stored)
        with graph.graph.inserting_before(node):
            frozen = graph.graph.call_function(DEQUANTIZE, (graph.graph.get_attr(name), scale, zero_point, axis))
        node.replace_all_uses_with(frozen)
        graph.graph.erase_node(node)
    clean(graph)
    return graph


def _normalise(model: onnx.ModelProto, portable: Portable, program: Program) -> None:
    """Removes what differs from run to run (stack traces with paths, versions) and states the IR version."""
    model.ir_version = portable.ir_version
    model.producer_name, model.producer_version, model.doc_string = "edgekit", "", ""
    model.graph.name, model.graph.doc_string = program.name, ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for group in (
        model.graph.node,
        model.graph.value_info,
        model.graph.input,
        model.graph.output,
        model.graph.initializer,
    ):
        for item in group:
            item.ClearField("doc_string")
            del item.metadata_props[:]


def _read_sizes_after_cast(model: onnx.ModelProto) -> None:
    """Makes every Shape of an input read the input's Cast instead: TensorRT takes uint8 into nothing but a Cast."""
    inputs = {item.name for item in model.graph.input}
    casts = {node.input[0]: node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in inputs}
    readers = [node for node in model.graph.node if node.op_type == "Shape" and node.input[0] in casts]
    for node in readers:
        node.input[0] = casts[node.input[0]].output[0]
    if readers:
        # The casts depend on inputs alone, so they may stand before everything that now reads them.
        first = [node for node in model.graph.node if any(node is cast for cast in casts.values())]
        rest = [node for node in model.graph.node if not any(node is cast for cast in casts.values())]
        ordered = [copy.deepcopy(node) for node in (*first, *rest)]
        del model.graph.node[:]
        model.graph.node.extend(ordered)


def _name_layers(model: onnx.ModelProto) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names compute nodes after the module that owns their weight.

    Returns:
        The names of those with an int8 weight, and old name to new name.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    initializers = {item.name for item in model.graph.initializer}
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    quantized = []
    for node in model.graph.node:
        if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
            continue
        weight, is_int8 = node.input[1], False
        while (
            weight not in initializers
            and weight in producers
            and producers[weight].op_type in {"DequantizeLinear", "Transpose", "Cast"}
        ):
            is_int8 |= producers[weight].op_type == "DequantizeLinear"
            weight = producers[weight].input[0]
        if weight in initializers:
            base = weight.removesuffix("_quantized").removesuffix(".weight")
            name = base
            while name in taken:
                name = f"{base}#{sum(item == base or item.startswith(base + '#') for item in taken) + 1}"
            renamed[node.name], node.name = name, name
            taken.add(name)
        if is_int8:
            quantized.append(node.name)
    return tuple(quantized), renamed


def _shape(item: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim)


def _give_attention_heads(graph: fx.GraphModule, example: tuple[torch.Tensor, ...]) -> None:
    """Attention over (batch, tokens, channels) becomes attention with one head: ONNX is written for four dimensions."""
    attention = [node for node in graph.graph.nodes if is_call(node, {_ATTENTION})]
    if not attention:
        return
    facts = node_facts(graph, *example)
    for node in attention:
        if facts[node].ndim != 3:
            continue
        inputs = [item for item in node.args[:4] if isinstance(item, fx.Node) and facts[item].ndim == 3]
        for item in dict.fromkeys(inputs):
            with graph.graph.inserting_before(node):
                node.replace_input_with(item, graph.graph.call_function(_A.unsqueeze.default, (item, 1)))
        with graph.graph.inserting_after(node):
            back = graph.graph.call_function(_A.squeeze.dim, (node, 1))
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
    graph.recompile()


def _spell_out_group_norms(graph: fx.GraphModule, example: tuple[torch.Tensor, ...]) -> None:
    """Writes a group norm with one group as the arithmetic that it is.

    The exporter makes it an InstanceNormalization between two reshapes, which breaks the memory layout of the layers
    around it. OpenVINO knows this form as one operator, and runs it in int8 in the layers' own layout.

    Source: Wu and He 2018, arXiv:1803.08494, equations 1 to 6, with the set S of all channels and positions.
    """
    norms = [node for node in graph.graph.nodes if is_call(node, GROUP_NORM) and argument(node, 1, "num_groups") == 1]
    if not norms:
        return
    facts = node_facts(graph, *example)
    for node in norms:
        rank = facts[node].ndim
        axes, per_channel = list(range(1, rank)), [1, -1, *([1] * (rank - 2))]
        with graph.graph.inserting_before(node):
            call = graph.graph.call_function
            offset = call(_A.sub.Tensor, (node.args[0], call(_A.mean.dim, (node.args[0], axes, True))))
            variance = call(_A.mean.dim, (call(_A.pow.Tensor_Scalar, (offset, 2)), axes, True))
            spread = call(_A.sqrt.default, (call(_A.add.Tensor, (variance, argument(node, 4, "eps", 1e-5))),))
            value = call(_A.div.Tensor, (offset, spread))
            for index, name, operator in ((2, "weight", _A.mul.Tensor), (3, "bias", _A.add.Tensor)):
                parameter = argument(node, index, name)
                if parameter is not None:
                    value = call(operator, (value, call(_A.reshape.default, (parameter, per_channel))))
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
    graph.recompile()


def _spell_out_hard_sigmoids(graph: fx.GraphModule) -> None:
    """Writes a hard sigmoid in the form that OpenVINO fuses into the convolution before it, in the type that it is."""
    for node in [node for node in graph.graph.nodes if is_call(node, {_A.hardsigmoid.default})]:
        with graph.graph.inserting_before(node):
            call = graph.graph.call_function
            shifted = call(_A.add.Tensor, (node.args[0], 3.0))
            value = call(_A.div.Tensor, (call(_A.clamp.default, (shifted, 0.0, 6.0)), 6.0))
            for item in (shifted, *value.all_input_nodes, value):
                item.meta = dict(node.meta)
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
    graph.recompile()


def _reason(error: BaseException) -> str:
    """The innermost cause, with the node that torch names on the way there."""
    node = None
    while error.__cause__ is not None:
        found = re.search(r"node %(\w+) .*?target=torch\.ops\.([\w.]+)", str(error))
        node = f"operator {found[2]} ('{found[1]}'): " if found is not None else node
        error = error.__cause__
    return f"{'' if node is None else node}{_first_line(error)}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's own progress lines and warnings; what matters comes back as errors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
