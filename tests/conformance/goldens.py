"""The golden graphs that every backend runs: one for each rule of where int8 goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.conformance.graphs import Golden, Sketch


def conv_relu(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.image())
    x = s.quantized(s.relu(s.conv(x, "conv1", 3, 16)))
    return [s.conv(x, "conv2", 16, 8)]


def residual_add(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.relu(s.conv(s.quantized(s.image()), "stem", 3, 16)))
    y = s.quantized(s.relu(s.conv(x, "conv1", 16, 16)))
    y = s.quantized(s.conv(y, "conv2", 16, 16))
    x = s.quantized(s.relu(s.node("Add", [y, x], "add")))
    return [s.conv(x, "head", 16, 8, kernel=1)]


def depthwise(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.node("Clip", [s.conv(s.quantized(s.image()), "expand", 3, 32), *_relu6(s)], "relu6"))
    x = s.quantized(s.relu(s.conv(x, "depthwise", 32, 32, groups=32, stride=2)))
    return [s.conv(x, "project", 32, 16, kernel=1)]


def concat_tied(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.image())
    a, b = s.conv(x, "left", 3, 16), s.relu(s.conv(x, "right", 3, 16))
    joined = s.node("Concat", [s.quantized(a, tied=[b]), s.quantized(b, tied=[a])], "concat", {"axis": 1})
    return [s.conv(joined, "after", 32, 8, kernel=1)]


def pool_linear(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.relu(s.conv(s.quantized(s.image()), "conv1", 3, 32)))
    x = s.node("MaxPool", [x], "max_pool", {"kernel_shape": [2, 2], "strides": [2, 2]})
    x = s.node("Flatten", [s.node("GlobalAveragePool", [x], "pool")], "flatten")
    return [s.gemm(s.quantized(x, linear=True), "classifier", 32, 10)]


def transposed_conv(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.relu(s.conv(s.quantized(s.image()), "down", 3, 16, stride=2)))
    x = s.quantized(s.relu(s.transposed(x, "up", 16, 16)))
    return [s.conv(x, "head", 16, 4, kernel=1)]


def squeeze_excite(s: Sketch) -> Sequence[str]:
    """The branch stays float, whole."""
    x = s.relu(s.conv(s.quantized(s.image()), "conv1", 3, 32))
    gate = s.node("GlobalAveragePool", [x], "squeeze")
    gate = s.relu(s.conv(gate, "reduce", 32, 8, kernel=1, exact=True))
    gate = s.node("Sigmoid", [s.conv(gate, "restore", 8, 32, kernel=1, exact=True)], "gate")
    x = s.quantized(s.node("Mul", [x, gate], "excite"))
    return [s.conv(x, "project", 32, 8, kernel=1)]


def attention(s: Sketch) -> Sequence[str]:
    """Patches, then one block of LayerNorm, attention and MLP: int8 linears, the two attention products float."""
    width = 32
    x = s.conv(s.quantized(s.image()), "patch", 3, width, kernel=3, stride=2)
    x = s.node("Reshape", [x, s.constant("tokens", np.array([0, width, -1]))], "flat")
    x = s.node("Transpose", [x], "sequence", {"perm": [0, 2, 1]})
    y = s.quantized(_layer_norm(s, x, "norm1", width), linear=True)
    q, k, v = (s.linear(y, name, width, width) for name in ("query", "key", "value"))
    scores = s.node("MatMul", [q, s.node("Transpose", [k], "key_t", {"perm": [0, 2, 1]})], "scores")
    scores = s.node("Mul", [scores, s.constant("attention_scale", np.float32(width**-0.5))], "scaled_scores")
    y = s.node("MatMul", [s.node("Softmax", [scores], "weights", {"axis": -1}), v], "mixed")
    x = s.node("Add", [x, s.linear(s.quantized(y, linear=True), "project", width, width)], "residual1")
    y = s.linear(s.quantized(_layer_norm(s, x, "norm2", width), linear=True), "mlp1", width, 64)
    y = s.node("Gelu", [y], "gelu")
    x = s.node("Add", [x, s.linear(s.quantized(y, linear=True), "mlp2", 64, width)], "residual2")
    pooled = s.node("ReduceMean", [x, s.constant("tokens_axis", np.array([1]))], "mean_tokens", {"keepdims": 0})
    return [s.gemm(s.quantized(pooled, linear=True), "classifier", width, 10)]


def two_outputs(s: Sketch) -> Sequence[str]:
    x = s.quantized(s.relu(s.conv(s.quantized(s.image()), "stem", 3, 16)))
    boxes = s.conv(x, "boxes", 16, 4, kernel=1)
    return [s.node("Sigmoid", [s.conv(x, "logits", 16, 2, kernel=1)], "scores"), boxes]


def _layer_norm(s: Sketch, x: str, name: str, width: int) -> str:
    scale = s.constant(f"{name}.weight", np.linspace(0.8, 1.2, width, dtype=np.float32))
    inputs = [x, scale, s.bias(f"{name}.bias", width)]
    return s.node("LayerNormalization", inputs, name, {"axis": -1, "epsilon": 1e-5})


def _relu6(s: Sketch) -> tuple[str, str]:
    return s.constant("zero", np.float32(0)), s.constant("six", np.float32(6))


GOLDENS: tuple[Golden, ...] = (
    Golden(name="conv_relu", draw=conv_relu),
    Golden(name="residual_add", draw=residual_add),
    Golden(name="depthwise", draw=depthwise),
    Golden(name="concat_tied", draw=concat_tied),
    Golden(name="pool_linear", draw=pool_linear),
    Golden(name="transposed_conv", draw=transposed_conv),
    Golden(name="squeeze_excite", draw=squeeze_excite),
    Golden(name="attention", draw=attention),
    Golden(name="two_outputs", draw=two_outputs),
    Golden(name="dynamic_batch", draw=residual_add, dynamic=True),
    Golden(name="dynamic_pool_linear", draw=pool_linear, dynamic=True),
)
