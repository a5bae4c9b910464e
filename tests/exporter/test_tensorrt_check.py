"""The check against hand-made graphs, each with one thing that TensorRT lacks, and against real ones."""

from pathlib import Path

import onnx
import onnx.parser
import pytest

from exporter.shape_derived import shape_derived_tensors
from exporter.tensorrt.check import Finding, check, summary
from exporter.tensorrt.operators import BY_VALUE, DATA_AT, SHAPE_INPUTS, TYPES
from exporter.tensorrt.restrictions import RULES
from tests.exporter.conftest import GOLDEN


def graph(body: str, *, inputs: str = "float[N,C,H,W] x", output: str = "float[n,c,h,w] y", opset: int = 20) -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}, "com.example" : 1]> g ({inputs}) => ({output}) {{ {body} }}'


def problems(text: str) -> list[tuple[str, str]]:
    model = onnx.parser.parse_model(text)
    return [(finding.operator, finding.problem) for finding in check(model)]


SHRUNK = "s = Constant <value_ints = [1, 3, 8, 8]> () "
PAIR = "d = Constant <value_float = 0.1> () z = Constant <value = {}> () q = QuantizeLinear (x, d, z) "
PAIR += "y = DequantizeLinear (q, d, z)"
FIT = {
    "resizing": SHRUNK + 'y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , , s)',
    "a shape that follows from sizes": "s = Shape (x) f = Reshape (x, s) y = Exp (f)",
    "sums over sides that are known": "a = Constant <value_ints = [1]> () y = ReduceSum (x, a)",
    "a pair of int8": PAIR.format("int8 {0}"),
    "bytes at the end": "m = Exp (x) y = Cast <to = 2> (m)",
}


@pytest.mark.parametrize("name", FIT)
def test_what_tensorrt_takes_passes(name: str) -> None:
    output = "uint8[N,C,H,W] y" if name == "bytes at the end" else "float[n,c,h,w] y"
    assert problems(graph(FIT[name], output=output)) == []


@pytest.mark.parametrize(
    ("body", "operator", "problem"),
    [
        ("y = Det (x)", "Det", "TensorRT has no such operator"),
        ("y = com.example.Blur (x)", "Blur", "an operator of com.example, not of the standard"),
        (
            SHRUNK + 'y = Resize <mode = "linear", antialias = 1> (x, , , s)',
            "Resize",
            "antialias = 1, and TensorRT's resizing has none",
        ),
        (SHRUNK + 'y = Resize <mode = "cubic"> (x, , , s)', "Resize", "mode = cubic, TensorRT has linear, nearest"),
        (
            SHRUNK + 'y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"> (x, , , s)',
            "Resize",
            "coordinate_transformation_mode = half_pixel_symmetric, TensorRT has",
        ),
        ("y = NonZero (x)", "NonZero", "its output's shape depends on what the image shows"),
        (
            "l = ReduceMax (x) f = Cast <to = 7> (l) e = Expand (x, f) y = Exp (e)",
            "Expand",
            "its output's shape depends on more than the image's size",
        ),
        ("s = Shape (x) i = Gather (s, k) y = Expand (x, i)", "Expand", "its output's shape depends on more than"),
        (
            PAIR.format("uint8 {0}"),
            "QuantizeLinear",
            "quantised to uint8, TensorRT's integers are int8",
        ),
        (
            PAIR.format("int8 {3}"),
            "DequantizeLinear",
            "the zero point must be 0",
        ),
        ("b = Cast <to = 2> (x) y = Cast <to = 1> (b)", "Cast", "gives uint8 within the graph"),
        ("b = Cast <to = 11> (x) y = Cast <to = 1> (b)", "Cast", "TensorRT has no double"),
        ("y, i = MaxPool <kernel_shape = [2, 2]> (x)", "MaxPool", "gives more than its first output"),
        ("y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2]> (x)", "AveragePool", "dilations other than 1"),
        ("c = Cast <to = 7> (x) y = ReduceSum (x, k)", "ReduceSum", "axes must be a constant"),
        (
            "k4 = Constant <value_ints = [4000]> () y, i = TopK (x, k4)",
            "TopK",
            "K must be below 3840",
        ),
    ],
)
def test_what_tensorrt_lacks_is_named(body: str, operator: str, problem: str) -> None:
    found = problems(graph(body, inputs="float[N,C,H,W] x, int64[K] k"))
    assert any(name == operator and said.startswith(problem) for name, said in found), found


def test_bytes_are_taken_at_the_ends_only() -> None:
    """As bundles before this check had them: turned before they are cast, and asked for their shape."""
    body = "t = Transpose <perm = [0, 3, 1, 2]> (x) y = Cast <to = 1> (t)"
    assert problems(graph(body, inputs="uint8[N,H,W,3] x")) == [
        ("Transpose", "gives uint8 within the graph, which TensorRT has at its ends only"),
        ("Transpose", "takes no uint8"),
    ]
    assert ("Shape", "takes no uint8") in problems(
        graph("s = Shape (x) y = Cast <to = 1> (s)", inputs="uint8[N,H,W,3] x", output="float[4] y")
    )


@pytest.mark.parametrize("opset", [8, 21, 23])
def test_opsets_that_only_some_versions_take_are_refused(opset: int) -> None:
    assert problems(graph("y = Exp (x)", opset=opset)) == [
        ("the graph", f"opset {opset}, every TensorRT 10 takes 9 to 20")
    ]


def test_a_graph_within_is_not_passed_over() -> None:
    body = "c = Constant <value = bool {1}> () y = If (c) <then_branch = a () => (float[n] t) { t = Det (x) }, "
    body += "else_branch = b () => (float[n] e) { e = Exp (x) }>"
    assert ("If", "has a graph of its own, into which this check does not look") in problems(graph(body))


def test_the_summary_counts() -> None:
    findings = [Finding("Det", "none", "a"), Finding("Exp", "odd", "b"), Finding("Det", "none", "c")]
    assert summary(findings) == "Det: none (2 times); Exp: odd"
    assert summary([]) == ""


def test_every_rule_is_of_an_operator_that_the_table_and_the_standard_know() -> None:
    """A name that is mistyped would never be looked up."""
    standard = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(TYPES) <= standard
    for names in (RULES, SHAPE_INPUTS, DATA_AT):
        assert set(names) <= set(TYPES)
    assert standard >= BY_VALUE


def test_what_sizes_decide_is_known_and_what_pixels_decide_is_not() -> None:
    text = graph(
        "s = Shape (x) o = Constant <value_float = 1.0> () f = Cast <to = 1> (s) p = Mul (f, o) y = Mul (x, p)"
    )
    assert shape_derived_tensors(onnx.parser.parse_model(text).graph) == {"", "s", "o", "f", "p"}


@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_a_plain_graph_of_this_version_is_fit_but_for_antialiasing(kind: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(f"{kind}_bundle")
    found = summary(check(onnx.load(bundle / "model.onnx")))
    # The ViT so resamples its table of positions, the ConvNet's graph so brings images to a long side. Nothing else.
    antialias, cubic = "Resize: antialias = 1, and TensorRT's resizing has none", "mode = cubic, TensorRT has linear"
    assert found == (f"{antialias}; Resize: {cubic}, nearest" if kind == "vit" else antialias)


def test_a_fused_graph_is_for_onnxruntime_alone(vit_bundle: Path) -> None:
    model = onnx.load(vit_bundle / "model.fused.onnx")
    found = "MultiHeadAttention: an operator of com.microsoft, not of the standard (2 times)"
    assert found in summary(check(model)).split("; ")


def test_the_first_exporters_graphs_turned_bytes() -> None:
    assert "Transpose: takes no uint8" in summary(check(onnx.load(GOLDEN / "model.onnx")))


def test_the_graph_is_left_as_it_is(vit_bundle: Path) -> None:
    model = onnx.load(vit_bundle / "model.onnx")
    before = model.SerializeToString(deterministic=True)
    check(model)
    assert model.SerializeToString(deterministic=True) == before
