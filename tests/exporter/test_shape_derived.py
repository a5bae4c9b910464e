"""Which tensors of a graph are known from the input sizes."""

import onnx.parser

from exporter.shape_derived import shape_derived_tensors


def test_shapes_and_constants_are_known_and_pixels_are_not() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,C,H,W] x) => (float[n,c,h,w] y) { s = Shape (x) '
        "o = Constant <value_float = 1.0> () f = Cast <to = 1> (s) p = Mul (f, o) y = Mul (x, p) }"
    )
    assert shape_derived_tensors(model.graph) == {"", "s", "o", "f", "p"}
