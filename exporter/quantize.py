"""int8 for CPUs: static quantisation with ranges learnt from images, as little of it as the bound allows.

Weights are int8 by output channel, activations uint8, in the form that onnxruntime runs in integers (QuantizeLinear
and DequantizeLinear around each operator), and what lies between them is carried so. What hurts most is left in float:
first only what reads the image, then more and more of the operators that change masks most when they alone are
quantised, until the judge is content.
"""

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from exporter.carried import CARRIED, carried
from exporter.onnx_images import Images
from exporter.probe import Bytes, Ids
from exporter.runtime import OnnxPredictor

QUANTISED = ("Conv", "MatMul", "Gemm")
"""Operators whose arithmetic turns to integers."""

FEW_CHANNELS = 4
"""A convolution of no more, such as one that reads an image, is slower in integers, and all that follows would lose."""

LOOKED_AT = 4
"""Images by which operators are ranked."""


class QuantisationError(ValueError):
    """No quantisation within the bound; the message says how far it was."""


def quantise(graph: Path, file: Path, images: Sequence[Bytes], lost: Callable[[Path], float], bound: float) -> int:
    """Write an int8 graph whose loss is within the bound.

    Args:
        graph: in fp32.
        file: where to write.
        images: uint8 [H,W,3], to learn ranges from.
        lost: what a graph file loses against fp32, in the bound's unit.
        bound: the most that it may.

    Returns:
        how many operators of QUANTISED were left in float.

    Raises:
        QuantisationError: there is none; nothing is left at `file`.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        names, of_the_image = _with_weights(onnx.load(prepared).graph)
        tried: dict[int, float] = {}
        worst: list[str] = []
        for more in _growing(len(names) // 2):
            _write(prepared, file, images, set(names) - set(worst[:more]))
            left = of_the_image + more
            if (loss := lost(file)) <= bound:
                return left
            tried[left] = loss
            worst = worst or _by_damage(prepared, images, names)
    file.unlink()
    among = len(names) + of_the_image
    found = ", ".join(f"{loss:.3g} with {left} of {among} operators in float" for left, loss in tried.items())
    raise QuantisationError(f"int8 loses {found}; at most {bound:.3g} is allowed")


def _growing(most: int) -> list[int]:
    """How many operators are left in float, one try after the other: 0, 1, 2, 4, 8 and so on, to so many at most."""
    return [0, *(1 << power for power in range(most.bit_length()))]


def _with_weights(graph: onnx.GraphProto) -> tuple[list[str], int]:
    """The names of operators with weights, and how many are left out that read few channels.

    Products of two activations, as attention has, stay in float.
    """
    channels = {tensor.name: _channels(tensor) for tensor in graph.initializer}
    found = [node for node in graph.node if node.op_type in QUANTISED and node.input[1] in channels]
    names = [node.name for node in found if node.op_type != "Conv" or not _few(node, channels[node.input[1]])]
    return names, len(found) - len(names)


def _channels(tensor: onnx.TensorProto) -> int:
    """Of the input, for one group, if these are the weights of a convolution."""
    return tensor.dims[1] if len(tensor.dims) > 1 else 1


def _few(convolution: onnx.NodeProto, channels: int) -> bool:
    return _groups(convolution) * channels <= FEW_CHANNELS


def _groups(convolution: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in convolution.attribute if attribute.name == "group"), 1)


def _write(prepared: Path, file: Path, images: Sequence[Bytes], quantised: Collection[str]) -> None:
    """Quantise these operators. Ranges are learnt once and kept beside `prepared`: the first call must name all."""
    graph = onnx.load(prepared).graph
    quantize_static(
        prepared,
        file,
        Images(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=[*QUANTISED, *CARRIED],
        nodes_to_quantize=[*quantised, *carried(graph, quantised)],
        per_channel=True,
        # CPUs without VNNI add products of 8 and 8 bits in 16, which overflow; of 8 and 7 they do not.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"TensorQuantOverrides": {name: [{"axis": 0, "reduce_range": False}] for name in _exact(graph)}},
        calibration_cache_path=prepared.with_suffix(".ranges.json"),
    )


def _exact(graph: onnx.GraphProto) -> list[str]:
    """Depthwise weights, [C,1,h,w]: onnxruntime adds their products in 32 bits on all CPUs, so they take all 8 bits."""
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    return [
        node.input[1]
        for node in graph.node
        if node.op_type == "Conv" and _groups(node) == channels.get(node.input[1]) != 1
    ]


def _by_damage(prepared: Path, images: Sequence[Bytes], names: Sequence[str]) -> list[str]:
    """The operators' names, first those that do most damage when nothing else is quantised."""
    alone, looked_at = prepared.with_name("alone.onnx"), images[:LOOKED_AT]
    expected = _answers(prepared, looked_at)
    damage = {}
    for name in names:
        _write(prepared, alone, images, {name})
        pairs = zip(expected, _answers(alone, looked_at), strict=True)
        damage[name] = sum(_difference(*one, *other) for one, other in pairs)
    return sorted(names, key=lambda name: -damage[name])


def _answers(graph: Path, images: Sequence[Bytes]) -> list[tuple[Ids, Bytes]]:
    predict = OnnxPredictor(graph)
    return [predict(image_HW3[None]) for image_HW3 in images]


def _difference(mask: Ids, confidence: Bytes, other_mask: Ids, other_confidence: Bytes) -> float:
    """Mean over the pixels: 1 where the class is another, else how far the confidence is off, 0..1."""
    change = np.abs(confidence.astype(np.int16) - other_confidence) / 255
    return float(np.where(mask == other_mask, change, 1.0).mean())
