"""Sessions of plans on the pretended GPU, for the tests of what is around the library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.tensorspec import TensorSpec
from tests.runtime.pretended_tensorrt import plan

Arrays = Mapping[str, np.ndarray]
IMAGE = TensorSpec(name="image", dtype="uint8", shape=(1, 4, 4, 3))
OTHER = TensorSpec(name="bias", dtype="float32", shape=(1, 3))
OUT = TensorSpec(name="logits", dtype="float32", shape=(1, 3))
BATCH = tuple(TensorSpec(name=item.name, dtype=item.dtype, shape=(None, *item.shape[1:])) for item in (IMAGE, OUT))


def network(arrays: Arrays) -> Arrays:
    return {"logits": arrays["image"].mean((1, 2)) + arrays.get("bias", np.float32(0))}


def plan_of(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...] = (OUT,)) -> bytes:
    tables = [
        {item.name: (item.dtype, tuple(-1 if size is None else size for size in item.shape)) for item in specs}
        for specs in (inputs, outputs)
    ]
    return plan(*tables)


def opened(
    inputs: tuple[TensorSpec, ...] = (IMAGE,),
    outputs: tuple[TensorSpec, ...] = (OUT,),
    *,
    kind: str = "tensorrt-rtx-plan",
    data: bytes | None = None,
    **keys: Any,
) -> Session:
    options = {"batch": [1, 1, 4], "builder": "TensorRT-RTX 1.6.0"}
    files = {"plan": plan_of(inputs, outputs) if data is None else data}
    return open_session(kind, files, options, inputs, outputs, **{"trusted": True, **keys})


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


# Of the form that NVIDIA's documentation shows for the engine inspector.
LAYERS = """{"Layers": [
  {"Name": "conv1 + relu", "LayerType": "CaskConvolution", "ParameterType": "Convolution",
   "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
   "Weights": {"Type": "Int8", "Count": 36864}, "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32",
   "Metadata": "[ONNX Layer: layer1.0.conv1]\\u001e[ONNX Layer: node_relu_1]"},
  {"Name": "pool", "LayerType": "CaskPooling", "ParameterType": "Pooling",
   "Inputs": [{"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
  "only a name"
], "Bindings": ["x", "y"]}"""
