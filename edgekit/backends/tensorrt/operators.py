"""Allow-list of ONNX operators and tensor types for strongly typed TensorRT networks, by release.

Source: onnx-tensorrt, ``docs/operators.md`` of release 10.6 and ``docs/Changelog.md``, which says in which release an
    operator
came. Control flow (If, Loop, Scan) is left out: nothing looks into the bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnx import TensorProto

__all__ = ["OPERATORS", "TENSORRT_TYPES", "Operator"]

_HALVES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_FLOATS = _HALVES | {TensorProto.BFLOAT16}
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_BOOL = frozenset({TensorProto.BOOL})
_ANYTHING = _NUMBERS | _BOOL

# INT8 exists only between QuantizeLinear and DequantizeLinear, UINT8 only at the network's border ("UINT8 is only
# supported as network input or output tensor types").
TENSORRT_TYPES = _ANYTHING | {TensorProto.INT8, TensorProto.UINT8}


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What TensorRT takes of one ONNX operator.

    Attributes:
        types: ``TensorProto`` types of its data.
        data: Index of the input whose type counts (the condition of Where comes first).
        since: First TensorRT release that has it.
    """

    types: frozenset[int]
    data: int = 0
    since: tuple[int, int] = (10, 0)


def _entries(
    names: str, types: Iterable[int], *, data: int = 0, since: tuple[int, int] = (10, 0)
) -> dict[str, Operator]:
    return {name: Operator(types=frozenset(types), data=data, since=since) for name in names.split()}


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    _entries(
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose "
        "Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
        "GroupNormalization GRU HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LayerNormalization "
        "LeakyRelu Log LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization "
        "PRelu Pow QuantizeLinear Reciprocal Resize RNN Round Selu Sigmoid Sin Sinh Softmax Softplus Softsign "
        "Sqrt Tan Tanh ThresholdedRelu Upsample",
        _FLOATS,
    )
    | _entries("GridSample Mish NonMaxSuppression NonZero RoiAlign", _HALVES)
    | _entries("DeformConv", _HALVES, since=(10, 1))
    | _entries("STFT", {TensorProto.FLOAT}, since=(10, 5))
    | _entries(
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max "
        "Mean Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
        "ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign "
        "SpaceToDepth Sub Sum TopK",
        _NUMBERS,
    )
    | _entries(
        "Concat ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity Reshape "
        "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze",
        _ANYTHING,
    )
    | _entries("Constant", _ANYTHING | {TensorProto.INT8})
    | _entries("Where", _ANYTHING, data=1)
    | _entries("OneHot", _ANYTHING, data=2)
    | _entries("And Not Or Xor", _BOOL)
    | _entries("Cast CastLike", _ANYTHING | {TensorProto.UINT8})
    | _entries("DequantizeLinear", {TensorProto.INT8})
)
