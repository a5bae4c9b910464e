"""Export a predictor to one ONNX file: `image` uint8 [N,H,W,3] in, `mask` and `confidence` [N,H,W] out.

`embedding` float16 [N,D] is a third output, if the predictor has one.
"""

# N images, K classes, D channels, H W pixels, T U height and width of a window

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import onnx
import onnx.compose
import onnx.numpy_helper
import onnxscript
import torch
from torch import Tensor, nn

from trainer.models.predictor import MaskPredictor

OPSET = 20
Weights = Literal["fp32", "fp16"]
FP16_MIN_SIZE = 1024
"""Elements: smaller tensors stay fp32, because fp16 would save too little."""


def write_graph(
    predictor: nn.Module, file: Path, *, multiple: int, metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Export `predictor` with dynamic N, H and W to one self-contained file.

    `predictor`, on the CPU, maps uint8 [N,H,W,3] to (integer mask [N,H,W], confidence uint8 [N,H,W]), and a
    MaskPredictor also to the embedding float16 [N,D]. Sides of the network's input are multiples of `multiple` pixels.
    `metadata` becomes the file's metadata_props.
    """
    # torch.export specialises on special values: not one image, no multiples, no square, and with either side several
    # windows of a network with windows, also at its coarsest stride.
    example_NHW3 = torch.zeros(2, 37 * multiple + 11, 53 * multiple + 5, 3, dtype=torch.uint8)
    inputs, outputs = {"image": (example_NHW3, 3)}, ["mask", "confidence"]
    if isinstance(predictor, MaskPredictor):
        # In two parts: to the second, the sides of the network's input are symbols. As formulas of the image's sides
        # they would be part of every shape in the network, and the export would take three times as long.
        outputs.append("embedding")
        grid = _trace(_Grid(predictor), inputs, ["grid"])
        network = _trace(_MaskType(predictor), inputs | {"grid": (_Grid(predictor)(example_NHW3), 2)}, outputs)
        model = _joined(grid, network)
    else:
        model = _trace(_MaskType(predictor), inputs, outputs)
    _write(model, "NHW", file, metadata)


def write_tile_graph(
    predictor: nn.Module, file: Path, *, window: tuple[int, int], metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Export `predictor`, with dynamic N and `window` = (T, U).

    It maps uint8 [N,T,U,3] to probability float32 [N,K,T,U] and embedding float16 [N,D].
    """
    example_NTU3 = torch.zeros(2, *window, 3, dtype=torch.uint8)
    _write(_trace(predictor, {"image": (example_NTU3, 1)}, ["probability", "embedding"]), "N", file, metadata)


def store_weights_as_fp16(graph: Path, file: Path) -> None:
    """Write a graph whose large weights are stored as fp16 and cast to fp32; onnxruntime casts once, at load."""
    model = onnx.load(graph)
    fp16_max = float(np.finfo(np.float16).max)
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FP16_MIN_SIZE or np.abs(values).max() > fp16_max:
            continue
        name, stored = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    _set_nodes(model.graph, [*casts, *model.graph.node])
    save(model, file)


def save(model: onnx.ModelProto, file: Path) -> None:
    """Check a graph and write it deterministically, without intermediate shapes and unused opsets."""
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


class _Grid(nn.Module):
    """The size of the network's input, in multiples of the network, as the sides of a tensor of zeros."""

    def __init__(self, predictor: MaskPredictor) -> None:
        super().__init__()
        self.network_size, self.multiple = predictor.network_size, predictor.segmenter.size_multiple

    def forward(self, image_NHW3: Tensor) -> Tensor:
        height, width = self.network_size(*image_NHW3.shape[1:3])
        return torch.zeros(height // self.multiple, width // self.multiple)


class _MaskType(nn.Module):
    """Cast masks to uint8, or to uint16 above 256 classes."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        mask_NHW, *others = self.predictor(*inputs)
        return (mask_NHW if mask_NHW.dtype == torch.uint8 else mask_NHW.to(torch.uint16)), *others


def _trace(module: nn.Module, inputs: Mapping[str, tuple[Tensor, int]], outputs: list[str]) -> onnx.ModelProto:
    """Export a module; of each example in `inputs`, the first so many dimensions become dynamic."""
    dynamic = tuple(dict.fromkeys(range(count), torch.export.Dim.DYNAMIC) for _, count in inputs.values())
    with warnings.catch_warnings():
        # torch.export itself uses LeafSpec in a way that torch has deprecated.
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=(dynamic,) if isinstance(module, _MaskType) else dynamic,
            dynamo=True,
            custom_translation_table={torch.ops.aten.mul.Scalar: _multiply},
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned None, which it does only for dynamo=False")
    return program.model_proto


def _multiply(tensor: Any, number: Any) -> Any:
    """Multiply by a number that may depend on the image's size, which torch's own translation takes for a constant."""
    return onnxscript.opset20.Mul(tensor, onnxscript.opset20.CastLike(number, tensor))


def _joined(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """The second graph, whose last input the first one computes from the same image."""
    first = onnx.compose.add_prefix(first, "grid.", rename_inputs=False, rename_outputs=False)
    del second.graph.input[-1]
    _set_nodes(second.graph, [*first.graph.node, *second.graph.node])
    second.graph.initializer.extend(first.graph.initializer)
    return second


def _write(model: onnx.ModelProto, dynamic: str, file: Path, props: Mapping[str, str]) -> None:
    """Write a graph; each letter of `dynamic` names one of the first dimensions of its inputs and outputs."""
    # Stack traces contain local paths.
    del model.graph.metadata_props[:]
    for each in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        each.doc_string = ""
        del each.metadata_props[:]
    onnx.helper.set_model_props(model, dict(props))
    for value in (*model.graph.input, *model.graph.output):
        names = "N" if value.name == "embedding" else dynamic
        for side, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            side.dim_param = name
    _take_shape_from_float_image(model.graph)
    save(model, file)


def _take_shape_from_float_image(graph: onnx.GraphProto) -> None:
    """Take the image's shape from its float cast, if any: TensorRT has no Shape of uint8 tensors."""
    (image,) = graph.input
    cast = next((node for node in graph.node if node.op_type == "Cast" and node.input[0] == image.name), None)
    if cast is None:
        return
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == image.name:
            node.input[0] = cast.output[0]
    _set_nodes(graph, [cast, *(node for node in graph.node if node != cast)])


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)
