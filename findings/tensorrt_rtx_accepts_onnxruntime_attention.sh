#!/usr/bin/env bash
# One would guess: TensorRT's ONNX parser knows the standard operators alone, so onnxruntime's com.microsoft::MultiHeadAttention is refused.
# True: the parser of TensorRT for RTX takes it, and an engine is built from it, without a GPU; uint8 quantisation passes with zero point 0 only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnx==1.22.0 numpy==2.4.6 tensorrt-rtx==1.7.1.116
"$work/venv/bin/python" - <<'PYTHON'
import importlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def load():
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            continue
    raise SystemExit("tensorrt-rtx is not installed")


trt = load()
logger = trt.Logger(trt.Logger.ERROR)


def parse(nodes, inputs, outputs, constants=(), domain=False):
    """Whether the parser takes the graph; its network, with the parser kept alive."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid("com.microsoft", 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    accepted = parser.parse(model.SerializeToString())
    return accepted, builder, network, parser


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def quantised(zero_point):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.uint8(zero_point), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    flat = [tensor(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    return parse(nodes, flat[:1], flat[1:], [scale, zero])[0]


attention = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=2)
inputs = [tensor(name, TensorProto.FLOAT, [1, 16, 32]) for name in "qkv"]
accepted, builder, network, parser = parse(
    [attention], inputs, [tensor("y", TensorProto.FLOAT, [1, 16, 32])], domain=True
)
engine = builder.build_serialized_network(network, builder.create_builder_config()) if accepted else None
seen = {
    "com.microsoft::MultiHeadAttention is parsed": accepted,
    "and an engine is built from it": engine is not None,
    "uint8 quantisation, zero point 0, is parsed": quantised(0),
    "uint8 quantisation, zero point 128, is parsed": quantised(128),
}
print("TensorRT for RTX", trt.__version__)
for what, found in seen.items():
    print(f"  {what}: {found}")
if list(seen.values()) != [True, True, True, False]:
    raise SystemExit("the behaviour has changed")
PYTHON
