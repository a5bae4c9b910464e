"""Static int8 quantisation for CPUs, with as few operators in float as the loss limit requires.

Weights are int8 per output channel, activations uint8, in QDQ format (QuantizeLinear and DequantizeLinear around each
operator), which onnxruntime runs in integers; operators between quantised ones stay in integers too. Only the
convolution that reads the image stays in float at first. While the loss exceeds the limit, 1, 2, 4, ... operators are
added, those first that change the masks most when only they are quantised.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from exporter.calibration import CalibrationImages
from exporter.int8_passthrough import PASSTHROUGH, int8_passthrough
from exporter.probe import Bytes, Ids
from exporter.runtime import OnnxPredictor

QUANTIZED = ("Conv", "MatMul", "Gemm")
"""Operators whose arithmetic becomes integer."""

FEW_CHANNELS = 4
"""Convolutions with at most this many input channels stay in float: they are slower in integers."""

RANKING_IMAGES = 4
"""Number of images by which operators are ranked."""


class QuantizationError(ValueError):
    """No quantisation within the loss limit; the message lists the losses."""


def quantize(graph: Path, file: Path, images: Sequence[Bytes], loss: Callable[[Path], float], limit: float) -> int:
    """Write an int8 graph whose loss is within the limit.

    Args:
        graph: in fp32.
        file: output file.
        images: uint8 [H,W,3]; the ranges of the activations are measured on them.
        loss: the loss of a graph file against fp32.
        limit: the largest accepted loss, in the same unit.

    Returns:
        The number of operators of QUANTIZED that stay in float.

    Raises:
        QuantizationError: The loss exceeds the limit even with half of the operators in float; `file` is removed.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        names, few_channels = _quantizable(onnx.load(prepared).graph)
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
    """Numbers of operators to exclude, one attempt each: 0, 1, 2, 4, 8, ... up to `limit`."""
    return [0, *(1 << power for power in range(limit.bit_length()))]


def _quantizable(graph: onnx.GraphProto) -> tuple[list[str], int]:
    """The names of the operators to quantise, and the number of those with few input channels, which are not.

    Products of two activations, as in attention, are neither.
    """
    channels = {tensor.name: _channels(tensor) for tensor in graph.initializer}
    found = [node for node in graph.node if node.op_type in QUANTIZED and node.input[1] in channels]
    names = [
        node.name for node in found if node.op_type != "Conv" or _groups(node) * channels[node.input[1]] > FEW_CHANNELS
    ]
    return names, len(found) - len(names)


def _channels(tensor: onnx.TensorProto) -> int:
    """Input channels per group, if the tensor holds the weights of a convolution."""
    return tensor.dims[1] if len(tensor.dims) > 1 else 1


def _groups(convolution: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)


def _write(prepared: Path, file: Path, images: Sequence[Bytes], quantized: Collection[str]) -> None:
    """Quantise these operators.

    Ranges are measured once and cached beside `prepared`, so the first call must name all operators.
    """
    graph = onnx.load(prepared).graph
    quantize_static(
        prepared,
        file,
        CalibrationImages(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*QUANTIZED, *PASSTHROUGH],
        nodes_to_quantize=[*quantized, *int8_passthrough(graph, quantized)],
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


def _depthwise_weights(graph: onnx.GraphProto) -> list[str]:
    """Weights [C,1,h,w] of depthwise convolutions: onnxruntime adds their products in 32 bits, so 8 bits are safe."""
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    return [
        node.input[1]
        for node in graph.node
        if node.op_type == "Conv" and _groups(node) == channels.get(node.input[1]) != 1
    ]


def _by_damage(prepared: Path, images: Sequence[Bytes], names: Sequence[str]) -> list[str]:
    """The operators, those first that change the masks most when only they are quantised."""
    single, ranking_images = prepared.with_name("single.onnx"), images[:RANKING_IMAGES]
    expected = _predictions(prepared, ranking_images)
    damage = {}
    for name in names:
        _write(prepared, single, images, {name})
        pairs = zip(expected, _predictions(single, ranking_images), strict=True)
        damage[name] = sum(_difference(*one, *other) for one, other in pairs)
    return sorted(names, key=lambda name: -damage[name])


def _predictions(graph: Path, images: Sequence[Bytes]) -> list[tuple[Ids, Bytes]]:
    predict = OnnxPredictor(graph)
    return [predict(image_HW3[None]) for image_HW3 in images]


def _difference(mask: Ids, confidence: Bytes, other_mask: Ids, other_confidence: Bytes) -> float:
    """Mean over the pixels: 1 if the classes differ, otherwise the difference of the confidences, [0, 1]."""
    change = np.abs(confidence.astype(np.int16) - other_confidence) / 255
    return float(np.where(mask == other_mask, change, 1.0).mean())
