"""Export a predictor to one ONNX file: `image` uint8 [N,H,W,3] in, `mask` and `confidence` [N,H,W] out."""

# N images, K classes, H W pixels, T U height and width of a window

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import Tensor, nn

OPSET = 20
Weights = Literal["fp32", "fp16"]
FP16_MIN_SIZE = 1024
"""Elements: smaller tensors stay fp32, because fp16 would save too little."""


def write_graph(
    predictor: nn.Module, file: Path, *, multiple: int, metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Export `predictor` with dynamic N, H and W to one self-contained file.

    `predictor`, on the CPU, maps uint8 [N,H,W,3] to (integer mask [N,H,W], confidence uint8 [N,H,W]). Sides of the
    network's input are multiples of `multiple` pixels. `metadata` becomes the file's metadata_props.
    """
    # torch.export specialises on special values: not one image, no multiples, no square, and with either side several
    # windows of a network with windows, also at its coarsest stride.
    example_NHW3 = torch.zeros(2, 37 * multiple + 11, 53 * multiple + 5, 3, dtype=torch.uint8)
    _export(_MaskType(predictor), example_NHW3, "NHW", ["mask", "confidence"], file, props=metadata)


def write_tile_graph(
    predictor: nn.Module, file: Path, *, window: tuple[int, int], metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Export `predictor`, uint8 [N,T,U,3] to probability float32 [N,K,T,U], with dynamic N and `window` = (T, U)."""
    _export(predictor, torch.zeros(2, *window, 3, dtype=torch.uint8), "N", ["probability"], file, props=metadata)


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


class _MaskType(nn.Module):
    """Cast masks to uint8, or to uint16 above 256 classes."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        mask_NHW, confidence_NHW = self.predictor(image_NHW3)
        return (mask_NHW if mask_NHW.dtype == torch.uint8 else mask_NHW.to(torch.uint16)), confidence_NHW


def _export(
    predictor: nn.Module,
    example_NHW3: Tensor,
    dynamic: str,
    outputs: list[str],
    file: Path,
    *,
    props: Mapping[str, str],
) -> None:
    """Write the ONNX graph; the letters of `dynamic` name the first dimensions, which become dynamic."""
    with warnings.catch_warnings():
        # torch.export itself uses LeafSpec in a deprecated way.
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            predictor.eval(),
            (example_NHW3,),
            input_names=["image"],
            output_names=outputs,
            dynamic_shapes=(dict.fromkeys(range(len(dynamic)), torch.export.Dim.DYNAMIC),),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned None, which it does only for dynamo=False")
    model: onnx.ModelProto = program.model_proto
    # Stack traces contain local paths.
    del model.graph.metadata_props[:]
    for each in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        each.doc_string = ""
        del each.metadata_props[:]
    onnx.helper.set_model_props(model, dict(props))
    for value in (*model.graph.input, *model.graph.output):
        for side, name in zip(value.type.tensor_type.shape.dim, dynamic, strict=False):
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
