"""A predictor becomes one ONNX file: `image` uint8 [N, H, W, 3] in, `mask` and `confidence` [N, H, W] out."""

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
SMALLEST_HALVED = 1024
"""Elements: smaller tensors stay fp32, as halving them saves nothing that could be seen."""


def write_graph(
    predictor: nn.Module, file: Path, *, multiple: int, facts: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Trace `predictor` with N, H and W dynamic and write it as one self-contained file.

    Args:
        predictor: uint8 [N, H, W, 3] to (mask of integers [N, H, W], confidence uint8 [N, H, W]); in eval mode, on
            the CPU.
        file: Where to write.
        multiple: Pixels of which the network's sides are multiples; the example's sides avoid them.
        facts: What the file says of itself, in its metadata_props.
    """
    # Two images, two different sides, neither a multiple: a special case taken for granted here would be baked in.
    example_NHW3 = torch.zeros(2, 2 * multiple + 11, 3 * multiple + 5, 3, dtype=torch.uint8)
    model = _traced(_Narrow(predictor), example_NHW3, "NHW", ["mask", "confidence"])
    onnx.helper.set_model_props(model, dict(facts))
    save(model, file)


def write_tile_graph(
    predictor: nn.Module, file: Path, *, window: tuple[int, int], facts: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Trace a window's predictor with N dynamic and the sides fixed.

    Args:
        predictor: uint8 [N, T, U, 3] to probability float32 [N, K, T, U]; in eval mode, on the CPU.
        file: Where to write.
        window: T and U, pixels.
        facts: What the file says of itself, in its metadata_props.
    """
    model = _traced(predictor, torch.zeros(2, *window, 3, dtype=torch.uint8), "N", ["probability"])
    onnx.helper.set_model_props(model, dict(facts))
    save(model, file)


def halve_weights(full: Path, file: Path) -> None:
    """Store large fp32 tensors of a graph in half the bytes, each with a Cast to fp32 behind it, under its old name.

    The arithmetic stays fp32: onnxruntime runs the Casts once, when it loads the file.
    """
    model = onnx.load(full)
    _halve_weights(model)
    save(model, file)


def save(model: onnx.ModelProto, file: Path) -> None:
    """Check a graph and write it, the same bytes for the same graph, without what tools left behind in it."""
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    imports = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


class _Narrow(nn.Module):
    """Masks in the type that a bundle promises: uint8, or uint16 where there are more than 256 classes."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, image_NHW3: Tensor) -> tuple[Tensor, Tensor]:
        mask_NHW, confidence_NHW = self.predictor(image_NHW3)
        return (mask_NHW if mask_NHW.dtype == torch.uint8 else mask_NHW.to(torch.uint16)), confidence_NHW


def _traced(predictor: nn.Module, example_NHW3: Tensor, free: str, outputs: list[str]) -> onnx.ModelProto:
    """The graph of a predictor whose first sides, as many as `free` has letters, are dynamic and have their names."""
    dynamic = dict.fromkeys(range(len(free)), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings():
        # torch.export copies its own tree specifications in the way that torch deprecates; nothing of ours.
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            predictor.eval(),
            (example_NHW3,),
            input_names=["image"],
            output_names=outputs,
            dynamic_shapes=(dynamic,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program; it does so only for dynamo=False")
    model: onnx.ModelProto = program.model_proto
    _forget_the_workshop(model, free)
    _ask_floats_for_their_shape(model.graph)
    return model


def _ask_floats_for_their_shape(graph: onnx.GraphProto) -> None:
    """Take the image's sides from its cast to float, where there is one, as TensorRT does not take them from bytes."""
    (image,) = graph.input
    cast = next((node for node in graph.node if node.op_type == "Cast" and node.input[0] == image.name), None)
    if cast is None:
        return
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == image.name:
            node.input[0] = cast.output[0]
    nodes = [cast, *(node for node in graph.node if node != cast)]
    del graph.node[:]
    graph.node.extend(nodes)


def _forget_the_workshop(model: onnx.ModelProto, free: str) -> None:
    """Drop stack traces (they hold this machine's paths) and intermediate shapes; name the dynamic sides."""
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    for value in (*graph.input, *graph.output):
        for side, name in zip(value.type.tensor_type.shape.dim, free, strict=False):
            side.dim_param = name


def _halve_weights(model: onnx.ModelProto) -> None:
    largest_half = float(np.finfo(np.float16).max)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < SMALLEST_HALVED or np.abs(values).max() > largest_half:
            continue
        name, stored = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
