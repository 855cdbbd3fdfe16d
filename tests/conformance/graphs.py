"""Golden graphs as edgekit plans them, drawn by hand: float first, then quantized with the float graph's ranges."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.backends.base import PortableGraph
from edgekit.tensorspec import TensorSpec
from tests.conformance.reference import reference_outputs

Array = npt.NDArray[Any]
SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a graph is quantized; ``float`` leaves it alone."""

    activations: Literal["float", "uint8", "int8"]
    weight_bits: int = 8

    @property
    def precision(self) -> str:
        return "fp32" if self.activations == "float" else "int8"

    @property
    def label(self) -> str:
        return self.activations if self.activations == "float" else f"{self.activations}-w{self.weight_bits}"


FLOAT = Scheme(activations="float")


@dataclass
class Sketch:
    """Collects the nodes of one graph. Tensors are named after the node that makes them."""

    scheme: Scheme
    ranges: Mapping[str, tuple[float, float]]
    batch: int | str = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    probed: list[str] = field(default_factory=list)
    quantized_layers: list[str] = field(default_factory=list)

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, attributes: Mapping[str, Any] | None = None) -> str:
        made = {} if attributes is None else dict(attributes)
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **made))
        return name

    def image(self) -> str:
        """uint8 NHWC to normalised float NCHW: cast first, then layout, mean, scale."""
        x = self.node("Cast", ["image"], "cast", {"to": TensorProto.FLOAT})
        x = self.node("Transpose", [x], "to_nchw", {"perm": [0, 3, 1, 2]})
        x = self.node(
            "Sub", [x, self.constant("mean", np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1))], "centred"
        )
        return self.node("Mul", [x, self.constant("scale", np.float32(1 / 60))], "scaled")

    def quantized(self, x: str, *, tied: Sequence[str] = (), linear: bool = False) -> str:
        """Q/DQ after a tensor; ``tied`` tensors share its range, a linear's input with both signs is symmetric."""
        self.probed.append(x)
        if self.scheme.activations == "float":
            return x
        lows, highs = zip(*(self.ranges[name] for name in (x, *tied)), strict=True)
        low, high = min(0.0, *lows), max(0.0, *highs)
        signed = self.scheme.activations == "int8" or (linear and low < 0)
        scale, zero = (max(-low, high) / 127, np.int8(0)) if signed else _asymmetric(low, high)
        if f"{x}.quantize" not in {node.name for node in self.nodes}:
            names = [self.constant(f"{x}.scale", np.float32(scale)), self.constant(f"{x}.zero", zero)]
            self.node("QuantizeLinear", [x, *names], f"{x}.quantize")
            self.node("DequantizeLinear", [f"{x}.quantize", *names], f"{x}.dequantize")
        return f"{x}.dequantize"

    def weight(
        self, name: str, shape: tuple[int, ...], *, axis: int = 0, gain: float = 1.0, exact: bool = False
    ) -> str:
        """A seeded weight; int8 initializer with a scale per output channel where the graph is quantized."""
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        value = (rng.standard_normal(shape) * gain / np.sqrt(np.prod(shape) / shape[axis])).astype(np.float32)
        if self.scheme.activations == "float" or exact:
            return self.constant(name, value)
        return self.stored_weight(name, value, axis)

    def stored_weight(self, name: str, value: Array, axis: int) -> str:
        limit = 127 if self.scheme.weight_bits == 8 else 63
        others = tuple(index for index in range(value.ndim) if index != axis)
        scale = (np.abs(value).max(others) / limit).astype(np.float32)
        wide = scale.reshape([-1 if index == axis else 1 for index in range(value.ndim)])
        names = [
            self.constant(f"{name}.q", np.clip(np.rint(value / wide), -limit, limit).astype(np.int8)),
            self.constant(f"{name}.scale", scale),
            self.constant(f"{name}.zero", np.zeros(scale.shape, np.int8)),
        ]
        return self.node("DequantizeLinear", names, name, {"axis": axis})

    def bias(self, name: str, size: int) -> str:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return self.constant(name, (rng.standard_normal(size) * 0.2).astype(np.float32))

    def conv(
        self,
        x: str,
        name: str,
        cin: int,
        cout: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        exact: bool = False,
    ) -> str:
        weight = self.weight(f"{name}.weight", (cout, cin // groups, kernel, kernel), exact=exact)
        attributes = {
            "kernel_shape": [kernel, kernel],
            "pads": [kernel // 2] * 4,
            "strides": [stride, stride],
            "group": groups,
        }
        self._planned(name, exact)
        return self.node("Conv", [x, weight, self.bias(f"{name}.bias", cout)], name, attributes)

    def transposed(self, x: str, name: str, cin: int, cout: int) -> str:
        weight = self.weight(f"{name}.weight", (cin, cout, 2, 2), axis=1)
        self._planned(name, False)
        attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
        return self.node("ConvTranspose", [x, weight, self.bias(f"{name}.bias", cout)], name, attributes)

    def linear(self, x: str, name: str, cin: int, cout: int) -> str:
        """A linear over the last dimension, as a matrix product of three or more dimensions and a bias."""
        weight = self.node(
            "Transpose", [self.weight(f"{name}.weight", (cout, cin))], f"{name}.weight_t", {"perm": [1, 0]}
        )
        self._planned(name, False)
        product = self.node("MatMul", [x, weight], name)
        return self.node("Add", [product, self.bias(f"{name}.bias", cout)], f"{name}.biased")

    def gemm(self, x: str, name: str, cin: int, cout: int) -> str:
        self._planned(name, False)
        inputs = [x, self.weight(f"{name}.weight", (cout, cin)), self.bias(f"{name}.bias", cout)]
        return self.node("Gemm", inputs, name, {"transB": 1})

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def _planned(self, name: str, exact: bool) -> None:
        if self.scheme.activations != "float" and not exact:
            self.quantized_layers.append(name)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One golden graph.

    Attributes:
        name: For test ids.
        draw: Draws it on a sketch and returns the output tensors.
        size: Side of the square image.
        dynamic: Leave the batch open.
    """

    name: str
    draw: Callable[[Sketch], Sequence[str]]
    size: int = 16
    dynamic: bool = False

    def images(self) -> Array:
        """Seeded images (SAMPLES, size, size, 3) uint8: smooth patterns with noise, full range."""
        rng = np.random.default_rng(7)
        coarse = rng.random((SAMPLES, 4, 4, 3)).repeat(self.size // 4, axis=1).repeat(self.size // 4, axis=2)
        return np.clip(coarse * 255 + rng.normal(0, 25, coarse.shape), 0, 255).astype(np.uint8)

    def portable(self, scheme: Scheme) -> PortableGraph:
        """Makes the graph; a quantized one is calibrated on the float graph's values for the golden images."""
        batch: int | str = "batch" if self.dynamic else 1
        sketch = Sketch(scheme=FLOAT, ranges={}, batch=batch)
        outputs = self.draw(sketch)
        if scheme.activations != "float":
            ranges = _ranges(self._model(sketch, [*dict.fromkeys(sketch.probed)]), self.images())
            sketch = Sketch(scheme=scheme, ranges=ranges, batch=batch)
            outputs = self.draw(sketch)
        model = self._model(sketch, outputs)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(inferred, full_check=True)
        first = None if self.dynamic else 1
        return PortableGraph(
            data=model.SerializeToString(deterministic=True),
            precision=scheme.precision,
            inputs=(TensorSpec(name="image", dtype="uint8", shape=(first, self.size, self.size, 3)),),
            outputs=tuple(
                TensorSpec(name=item.name, dtype="float32", shape=(first, *_sizes(item)[1:]))
                for item in inferred.graph.output
            ),
            quantized_layers=tuple(sketch.quantized_layers),
        )

    def _model(self, sketch: Sketch, outputs: Sequence[str]) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [sketch.batch, self.size, self.size, 3])
        shapeless = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(sketch.nodes, self.name, [image], shapeless, list(sketch.constants.values()))
        opsets = [helper.make_opsetid("", 20)]
        inferred = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))
        known = {item.name: item for item in inferred.graph.output}
        del graph.output[:]
        graph.output.extend(known[name] for name in outputs)
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _asymmetric(low: float, high: float) -> tuple[float, Any]:
    scale = (high - low) / 255
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def _ranges(model: onnx.ModelProto, images: Array) -> dict[str, tuple[float, float]]:
    values = reference_outputs(model.SerializeToString(), {"image": images})
    return {name: (float(value.min()), float(value.max())) for name, value in values.items()}


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(item.dim_value for item in value.type.tensor_type.shape.dim)
