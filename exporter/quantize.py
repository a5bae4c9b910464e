"""Static int8 quantisation for CPUs, with as few operators in float as the loss limit requires.

Weights are int8 per output channel (of 7 bits, in depthwise convolutions of 8), activations uint8, in QDQ format, which
onnxruntime runs in integers. At first, only the convolution that reads the image stays in float. While the loss exceeds
the limit, 1, 2, 4, ... operators follow, those first that alone change the masks most.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from exporter.calibration import CalibrationImages
from exporter.embedding_branch import embedding_nodes
from exporter.probe import Bytes, Outputs
from exporter.runtime import OnnxPredictor

QUANTIZED = ("Conv", "MatMul", "Gemm")
"""Operators whose arithmetic becomes integer."""

ACTIVATIONS = ("Clip", "Relu")
"""Quantised with the operator before them."""

BETWEEN = ("Add", "Resize")
"""Quantised only if all their inputs and consumers are: other consumers need the float value."""

PASSTHROUGH = (*ACTIVATIONS, *BETWEEN)

FEW_CHANNELS = 4
"""Convolutions with at most this many input channels stay in float: they are slower in integers."""

RANKING_IMAGES = 4


class QuantizationError(ValueError):
    """No quantisation within the loss limit; the message lists the losses."""


def quantize(graph: Path, file: Path, images: Sequence[Bytes], loss: Callable[[Path], float], limit: float) -> int:
    """Write an int8 graph whose loss is within the limit; return the number of operators of QUANTIZED left in float.

    The ranges of the activations are measured on `images`, uint8 [H,W,3]; `loss` compares a graph file with fp32.

    Raises:
        QuantizationError: The loss exceeds the limit even with half of the operators in float; `file` is removed.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        names, few_channels = _quantizable(ir.load(prepared).graph)
        losses: dict[int, float] = {}
        ranked: list[str] = []
        for excluded in _exclusion_counts(len(names) // 2):
            _write(prepared, file, images, set(names) - set(ranked[:excluded]))
            in_float = few_channels + excluded
            losses[in_float] = loss(file)
            if losses[in_float] <= limit:
                return in_float
            ranked = ranked or _by_damage(prepared, images, names)
    file.unlink()
    total = len(names) + few_channels
    found = ", ".join(f"{lost:.3g} with {count} of {total} operators in float" for count, lost in losses.items())
    raise QuantizationError(f"int8 loses {found}; at most {limit:.3g} is allowed")


def _exclusion_counts(limit: int) -> list[int]:
    """0, 1, 2, 4, 8, ... up to `limit`."""
    return [0, *(1 << power for power in range(limit.bit_length()))]


def _quantizable(graph: ir.Graph) -> tuple[list[str], int]:
    """Names of the operators to quantise, and number of those with few input channels."""
    found = {str(node.name): node for node in graph if node.op_type in QUANTIZED and _weight_shape(node)}
    names = [name for name, node in found.items() if node.op_type != "Conv" or _input_channels(node) > FEW_CHANNELS]
    return names, len(found) - len(names)


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    """The shape of the second input if it is constant, otherwise ()."""
    weights = node.inputs[1] and node.inputs[1].const_value
    return tuple(weights.shape.numpy()) if weights else ()


def _input_channels(convolution: ir.Node) -> int:
    return _groups(convolution) * _weight_shape(convolution)[1]


def _groups(convolution: ir.Node) -> int:
    return convolution.attributes.get_int("group", 1)


def _write(prepared: Path, file: Path, images: Sequence[Bytes], quantized: Collection[str]) -> None:
    """Quantise these operators. The first call must name all: it measures the ranges, which are cached."""
    graph = ir.load(prepared).graph
    quantize_static(
        prepared,
        file,
        CalibrationImages(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*QUANTIZED, *PASSTHROUGH],
        nodes_to_quantize=[*quantized, *_int8_passthrough(graph, quantized)],
        per_channel=True,
        # CPUs without VNNI add 8-bit x 8-bit products in 16 bits, which overflow; with 7-bit weights they do not.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            "TensorQuantOverrides": {name: [{"axis": 0, "reduce_range": False}] for name in _depthwise_weights(graph)}
        },
        calibration_cache_path=prepared.with_suffix(".ranges.json"),
    )


def _int8_passthrough(graph: ir.Graph, quantized: Collection[str]) -> list[str]:
    """Names of the operators between the quantised ones that stay in int8.

    A Relu only limits the convolution's output range; sums and upsamplings would convert int8 to float and back.
    """
    candidates = [node for node in graph if node.op_type in PASSTHROUGH]
    # The embedding may read rounded values: otherwise it would take sums out of int8 that the masks have in int8.
    in_int8 = {*candidates, *(node for node in graph if node.name in quantized), *embedding_nodes(graph)}

    def fits(node: ir.Node) -> bool:
        features = node.inputs if node.op_type == "Add" else node.inputs[:1]  # the others are bounds and sizes
        if not all(value is not None and value.producer() in in_int8 for value in features):
            return False
        result = node.outputs[0]
        return node.op_type in ACTIVATIONS or (in_int8.issuperset(result.consumers()) and not result.is_graph_output())

    # Repeat until stable: rejecting one operator can invalidate its neighbours.
    while unfit := [node for node in candidates if not fits(node)]:
        in_int8.difference_update(unfit)
        candidates = [node for node in candidates if node in in_int8]
    return [str(node.name) for node in candidates]


def _depthwise_weights(graph: ir.Graph) -> list[str]:
    """Weights [C,1,h,w] of depthwise convolutions: onnxruntime adds their products in 32 bits, so 8 bits are safe."""
    convolutions = [node for node in graph if node.op_type == "Conv"]
    depthwise = [node for node in convolutions if _weight_shape(node)[:1] == (_groups(node),) != (1,)]
    return [str(node.inputs[1].name) for node in depthwise if node.inputs[1]]


def _by_damage(prepared: Path, images: Sequence[Bytes], names: Sequence[str]) -> list[str]:
    """The operators, those first that alone change the masks most."""
    single, ranking_images = prepared.with_name("single.onnx"), images[:RANKING_IMAGES]
    expected = _predictions(prepared, ranking_images)
    damage = {}
    for name in names:
        _write(prepared, single, images, {name})
        pairs = zip(expected, _predictions(single, ranking_images), strict=True)
        damage[name] = sum(_difference(one, other) for one, other in pairs)
    return sorted(names, key=lambda name: -damage[name])


def _predictions(graph: Path, images: Sequence[Bytes]) -> list[Outputs]:
    predict = OnnxPredictor(graph)
    return [predict(image_HW3[None]) for image_HW3 in images]


def _difference(one: Outputs, other: Outputs) -> float:
    """Mean over the pixels: 1 if the classes differ, otherwise the difference of the confidences, [0, 1]."""
    change = np.abs(one.confidence.astype(np.int16) - other.confidence) / 255
    return float(np.where(one.mask == other.mask, change, 1.0).mean())
