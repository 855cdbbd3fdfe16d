"""The other quantizers of the accuracy benchmark, used as their own documentation says.

NNCF: ``nncf.quantize`` on ``ov.convert_model``, with the preset that its documentation recommends for the network
(``mixed`` where activations are not ReLU, else ``performance``), ``model_type=TRANSFORMER`` for a transformer, and with
either of its two bias corrections.

ONNX Runtime: ``quant_pre_process``, then ``quantize_static`` in the QDQ format with MinMax calibration (its default), a
scale per channel, uint8 activations and int8 weights: what its documentation recommends for x86 with VNNI.

All get normalized float inputs, the same that edgekit calibrates on, one at a time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino as ov
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from benchmarks.engine_worker import compile_ir, executed
from benchmarks.nncf_build import convert, quantize
from benchmarks.trained import Network

__all__ = ["NncfEngine", "OrtEngine", "nncf_engine", "ort_engine"]

Pixels = npt.NDArray[np.float32]
_MULTIPLICATIONS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_OPSET = 18


class NncfEngine:
    """A saved OpenVINO model, on one thread."""

    def __init__(self, path: Path) -> None:
        self._compiled = compile_ir(path, threads=1)
        self._request = self._compiled.create_infer_request()

    def logits(self, pixels: Pixels) -> Pixels:
        """Maps one input (1, C, H, W) to logits (1, classes)."""
        self._request.infer({0: pixels}, share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data)

    def layers(self) -> dict[str, int]:
        """Counts by precision what multiplies."""
        return dict(Counter(precision for kind, precision in executed(self._compiled) if kind in _MULTIPLICATIONS))


def nncf_engine(
    network: Network, module: nn.Module, images: Sequence[Pixels], folder: Path, *, full_bias_correction: bool
) -> NncfEngine:
    """Quantizes with NNCF."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = quantize(
        convert(module, images[0].shape),
        images,
        network.nncf_preset,
        transformer=network.transformer,
        full_bias_correction=full_bias_correction,
    )
    path = folder / f"nncf-{'full' if full_bias_correction else 'fast'}.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    return NncfEngine(path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration images to ONNX Runtime."""

    def __init__(self, images: Sequence[Pixels]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


class OrtEngine:
    """A saved ONNX model in ONNX Runtime, on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._optimized = path.with_suffix(".optimized.onnx")
        options.optimized_model_filepath = str(self._optimized)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits(self, pixels: Pixels) -> Pixels:
        """Maps one input (1, C, H, W) to logits (1, classes)."""
        answers: list[Pixels] = self._session.run(None, {"image": pixels})
        return answers[0]

    def layers(self) -> dict[str, int]:
        """Counts by precision what multiplies, in the graph that ONNX Runtime made for this machine."""
        return count_operators([node.op_type for node in onnx.load(str(self._optimized)).graph.node])


def count_operators(kinds: Sequence[str]) -> dict[str, int]:
    """Counts multiplying operators of an optimized ONNX graph: those on integers, and those left float.

    >>> count_operators(["QLinearConv", "Conv", "Add", "QGemm"])
    {'int8': 2, 'fp32': 1}
    """
    counted: Counter[str] = Counter()
    for kind in kinds:
        if kind in ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"):
            counted["int8"] += 1
        elif kind in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"):
            counted["fp32"] += 1
    return dict(counted)


def ort_engine(module: nn.Module, images: Sequence[Pixels], folder: Path) -> OrtEngine:
    """Exports to ONNX and quantizes with ONNX Runtime."""
    exported, prepared, quantized = (folder / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
    example = torch.zeros(images[0].shape)
    with torch.no_grad():
        torch.onnx.export(
            module, (example,), str(exported), input_names=["image"], opset_version=_OPSET, dynamo=True, verbose=False
        )
    quant_pre_process(str(exported), str(prepared))
    arguments: Mapping[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    }
    quantize_static(str(prepared), str(quantized), _Reader(images), **arguments)
    return OrtEngine(quantized)
