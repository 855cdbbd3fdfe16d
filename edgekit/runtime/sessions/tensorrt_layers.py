"""What a TensorRT engine says of its layers, as layer records.

Source: NVIDIA TensorRT documentation, "Engine Inspector": the JSON of an engine with detailed profiling verbosity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgekit.tensorspec import LayerRecord

__all__ = ["layer_records"]

_COMPUTE = re.compile(r"convolution|deconvolution|gemm|matrix_?multiply|fully_?connected|rnn|lstm|gru|attention", re.I)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# In this order: 'Int8' stands beside 'FP32' where a scale is described.
_TYPES = (
    (re.compile(r"int8", re.I), "int8"),
    (re.compile(r"bf16|bfloat16", re.I), "bf16"),
    (re.compile(r"fp16|half|float16", re.I), "fp16"),
    (re.compile(r"fp32|float", re.I), "fp32"),
    (re.compile(r"int32|int64|bool|uint8", re.I), "integer"),
)


def layer_records(text: str) -> tuple[LayerRecord, ...]:
    """Reads the inspector's JSON; an engine that tells less gives fewer facts, and a text that is no JSON none.

    A layer's precision is the type of its weights, where it names one, else of its first input.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return ()
    layers = document.get("Layers", []) if isinstance(document, dict) else []
    return tuple(_record(item) for item in layers)


def _record(item: Any) -> LayerRecord:
    if not isinstance(item, Mapping):  # with less verbosity a layer is its name alone
        return LayerRecord(name=str(item), kind="unknown", precision="unknown", compute=False)
    kind = str(item.get("ParameterType", item.get("LayerType", "unknown")))
    nodes = _ONNX_LAYER.findall(str(item.get("Metadata", "")))
    return LayerRecord(
        name=", ".join(nodes) if nodes else str(item.get("Name", "")),
        kind=str(item.get("LayerType", kind)),
        precision=_precision(item),
        compute=_COMPUTE.search(kind) is not None,
    )


def _precision(item: Mapping[str, Any]) -> str:
    weights = item.get("Weights")
    described = [str(weights.get("Type", ""))] if isinstance(weights, Mapping) else []
    for tensor in item.get("Inputs", ()):
        if isinstance(tensor, Mapping):
            described.append(str(tensor.get("Format/Datatype", tensor.get("Datatype", tensor.get("Format", "")))))
    for words in described:
        for pattern, name in _TYPES:
            if pattern.search(words):
                return name
    return "unknown"
