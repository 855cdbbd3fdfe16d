"""Portable ONNX graph -> OpenVINO IR, the same bytes for the same graph in every process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekit.backends.openvino.library import offline_transformations, openvino
from edgekit.backends.openvino.naming import name_operations
from edgekit.backends.openvino.refusal import explain_refusal
from edgekit.errors import StageError

__all__ = ["emit_ir", "read_onnx"]


def read_onnx(data: bytes) -> Any:
    """Reads an ONNX model into an ``openvino.Model``.

    Raises:
        BackendMissing: OpenVINO is not installed.
        StageError: OpenVINO cannot translate it; names the nodes.
    """
    core = openvino().Core()
    try:
        return core.read_model(data)
    except RuntimeError as error:  # OpenVINO's only exception type
        refusal = explain_refusal(str(error))
        raise StageError(
            f"OpenVINO cannot read the portable graph: {refusal.summary}",
            hint="the graph is kept as ONNX; report the operator, or leave it out of the model",
        ) from error


def emit_ir(data: bytes, *, largest_batch: int | None = None) -> dict[str, bytes]:
    """Translates an ONNX model into IR files, keeping names, types and weights as the graph says.

    No weight is compressed to fp16, and int8 weights stay int8 constants. OpenVINO's clean-up transformations (those
    of its model conversion) run here once, so that devices need not repeat them at each load.

    Args:
        data: Serialized ONNX model.
        largest_batch: Bound of a dynamic batch; None leaves it open.

    Returns:
        ``{"xml": ..., "bin": ...}``.

    Raises:
        BackendMissing: OpenVINO is not installed.
        StageError: OpenVINO cannot translate the graph.
    """
    model = read_onnx(data)
    if largest_batch is not None:
        _bound_batch(model, largest_batch)
    # Named before the clean-up too: folded constants inherit the name of what was folded.
    name_operations(model)
    transformations = offline_transformations()
    transformations.apply_moc_transformations(model, False)
    transformations.apply_fused_names_cleanup(model)  # lists of process-dependent names
    name_operations(model)
    with tempfile.TemporaryDirectory(prefix="edgekit-ir-") as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        # serialize, not save_model: the latter writes version and conversion parameters into the file.
        openvino().serialize(model, str(xml), str(weights))
        return {"xml": xml.read_bytes(), "bin": weights.read_bytes()}


def _bound_batch(model: Any, largest: int) -> None:
    """States the bounds of a dynamic batch, which OpenVINO then holds inputs against."""
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        if shape.rank.get_length() > 0 and shape[0].is_dynamic:
            shape[0] = openvino().Dimension(1, largest)
            shapes[port] = shape
    if shapes:
        model.reshape(shapes)
