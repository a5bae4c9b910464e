"""Which operators TensorRT has, and on which types of data.

The facts are those of docs/operators.md in github.com/onnx/onnx-tensorrt for TensorRT 10.15, which takes opsets 9 to
24; 10.0 took 9 to 20. Operators of quantised types (FP8, FP4, INT4) are listed without them: a bundle has none.
"""

from onnx import TensorProto

SOURCE = "onnx-tensorrt's docs/operators.md for TensorRT 10.15"
OPSETS = range(9, 21)
"""That every TensorRT 10 takes, and 11 too."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
FP32_FP16 = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
BOOL = frozenset({TensorProto.BOOL})

_BY_TYPES = {
    FLOATS: (
        "Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose "
        "Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool "
        "GroupNormalization GRU Hardmax HardSigmoid HardSwish InstanceNormalization IsInf LayerNormalization LeakyRelu "
        "Log LogSoftmax LpNormalization LpPool LRN LSTM MatMul MaxPool MeanVarianceNormalization PRelu QuantizeLinear "
        "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize RMSNormalization RNN "
        "RotaryEmbedding Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh TensorScatter "
        "ThresholdedRelu Upsample"
    ),
    FP32_FP16: (
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign"
    ),
    frozenset({TensorProto.FLOAT}): "STFT",
    NUMBERS: (
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min "
        "Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum "
        "TopK"
    ),
    NUMBERS | BOOL: (
        "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot "
        "Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where"
    ),
    NUMBERS | BOOL | {TensorProto.UINT8}: "Cast CastLike",
    BOOL: "And Not Or Xor",
    frozenset({TensorProto.INT8}): "DequantizeLinear",
}

TYPES: dict[str, frozenset[int]] = {name: types for types, names in _BY_TYPES.items() for name in names.split()}
"""By operator: the types of its data. An operator that is not here, TensorRT does not have."""

DATA_AT = {"Where": 1}
"""Which input is the data, where it is not the first."""

CASTABLE = TYPES["Cast"]
"""What a Cast may give."""

BY_VALUE = frozenset({"NonZero", "NonMaxSuppression", "Compress", "Unique"})
"""Operators whose output's shape depends on what the image shows: no engine for real-time use wants one."""

SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Inputs that give a shape: they must follow from the sizes of the image alone."""
