"""The fp16 and int8 graphs: their contents, their validation, and when they are not kept."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from PIL import Image

from exporter import artifacts
from exporter import quantize as quantize_module
from exporter.attention import fuse_attention
from exporter.bundle import BundleError, read_manifest
from exporter.calibration import large_tensors
from exporter.channels_last import resize_channels_last
from exporter.export import eager, export
from exporter.fp16 import FP16_SAFE_MAX, FP32_OPERATORS, convert_to_fp16, shape_derived_tensors
from exporter.probe import Bytes, Outputs, Predict, scene
from exporter.quantize import ACTIVATIONS, QUANTIZED, QuantizationError, _exclusion_counts, quantize
from exporter.runtime import OnnxPredictor
from exporter.validation import DataError, Validator, _evenly_spaced
from exporter.verify import verify
from tests.exporter.conftest import COLORS, NAMES, predictor_of
from trainer.checkpoint import load
from trainer.data.dataset import Sample

SPLITS = {"labelled": 5, "unlabelled": 3, "val": 3}
VAL_SIZE = (120, 160)
DATA = {"labelled": "labelled", "unlabelled": "unlabelled", "val": "val"}


@pytest.fixture(scope="module")
def places(convnet_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose labels are PyTorch's own masks, so that PyTorch's mIoU is 1."""
    root, predict = tmp_path_factory.mktemp("places"), eager(predictor_of(convnet_checkpoint))
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir()
    tables = (f'[[classes]]\nname = "{n}"\ncolor = {list(c)}\n' for n, c in zip(NAMES, COLORS, strict=True))
    (root / "classes.toml").write_text("".join(tables))
    seed = 100
    for split, count in SPLITS.items():
        names = [f"{split}{number}" for number in range(count)]
        (root / f"splits/{split}.txt").write_text("\n".join(names))
        for name in names:
            seed += 1
            image_HW3 = scene(*VAL_SIZE, seed)
            Image.fromarray(image_HW3).save(root / f"images/{name}.png")
            if split != "unlabelled":
                Image.fromarray(predict(image_HW3[None])[0][0]).save(root / f"masks/{name}.png")
    return root


@pytest.fixture(scope="module")
def bundle(convnet_checkpoint: Path, places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("precise") / "bundle"
    skipped: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # With random weights, logits of classes are close: int8 would exceed the limit for trained networks.
        patch.setattr(artifacts, "MAX_MIOU_LOSS", 0.3)
        patch.setattr(artifacts, "FP16_VALIDATION_AGREEMENT", 0.98)
        export(convnet_checkpoint, out, precisions=("int8", "fp16"), data=places, skipped=skipped.append)
    assert skipped == []
    return out


def test_manifest_describes_each_graph(bundle: Path) -> None:
    fp32, fp16, int8 = read_manifest(bundle).artifacts
    assert [fp32.precision, fp16.precision, int8.precision] == ["fp32", "fp16", "int8"]
    assert [each.file for each in (fp32, fp16, int8)] == ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]
    assert fp16.bytes < 0.65 * fp32.bytes
    assert int8.bytes < 0.65 * fp32.bytes
    for each in (fp32, fp16, int8):
        assert "maskloop.classes" in {prop.key for prop in onnx.load(bundle / each.file).metadata_props}
        assert each.validation is not None
        assert each.validation.images == SPLITS["val"]
        assert each.validation.miou_lost == pytest.approx(1 - each.validation.miou)
    assert fp32.validation is not None
    assert fp32.validation.mask >= 0.9999
    assert (fp32.probe_agreement, fp32.left_in_float) == (None, None)
    assert fp16.probe_agreement == artifacts.FP16_PROBE_AGREEMENT
    assert int8.probe_agreement == pytest.approx(int8.agreement.mask - artifacts.INT8_PROBE_MARGIN)
    assert int8.left_in_float is not None
    cosines = [each.agreement.embedding_cosine or 0 for each in (fp32, fp16, int8)]
    assert [cosine >= least for cosine, least in zip(cosines, (0.99999, 0.9999, 0.95), strict=True)] == [True] * 3
    assert (fp32.min_embedding_cosine, fp16.min_embedding_cosine) == (0.9999, 0.999)
    assert int8.min_embedding_cosine == pytest.approx(cosines[2] - artifacts.INT8_PROBE_MARGIN)


def test_verify_runs_each_graph(bundle: Path) -> None:
    found = verify(bundle)
    assert list(found.agreement) == ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]
    assert found.mask_agreement == found.agreement["model.onnx"]


def test_fp16_graph_keeps_sensitive_operators_in_fp32(bundle: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(bundle / "model.fp16.onnx")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(types[node.input[1]] == onnx.TensorProto.FLOAT16 for node in convolutions)
    kept = [node for node in graph.node if node.op_type in {*FP32_OPERATORS, "ReduceMax", "Exp"}]
    assert {"Resize", "ReduceMax", "Exp"} <= {node.op_type for node in kept}
    assert all(types.get(node.output[0]) != onnx.TensorProto.FLOAT16 for node in kept)


def test_int8_weights_are_quantised_per_channel(bundle: Path) -> None:
    graph = onnx.load(bundle / "model.int8.onnx").graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    weights = [producers[node.input[1]] for node in graph.node if node.op_type == "Conv" and node.input[1] in producers]
    assert all(weight.op_type == "DequantizeLinear" for weight in weights)
    assert len(weights) >= 20
    for weight in weights:
        values = onnx.numpy_helper.to_array(tensors[weight.input[0]])
        assert values.dtype == np.int8
        largest = np.abs(values.astype(int)).max()
        assert largest == 127 if values.shape[1] == 1 else largest <= 64, "7 bits, because 8 overflow without VNNI"
        assert tensors[weight.input[1]].dims[0] == values.shape[0]


def test_int8_removes_activations_behind_convolutions(bundle: Path) -> None:
    """The range of a convolution's output is that of Relu or Clip, which are therefore not needed."""
    fp32, int8 = (onnx.load(bundle / f"{name}.onnx").graph.node for name in ("model", "model.int8"))
    readers = Counter(name for node in fp32 for name in node.input)
    convolutions = {node.output[0] for node in fp32 if node.op_type == "Conv" and readers[node.output[0]] == 1}
    cut = [node.output[0] for node in fp32 if node.op_type in ACTIVATIONS and node.input[0] in convolutions]
    assert cut
    assert not {node.output[0] for node in int8 if node.op_type in ACTIVATIONS} & set(cut)


def test_only_the_int8_graph_resizes_channels_last(bundle: Path) -> None:
    """The fp32 graph also has to run on GPUs."""
    fp32, int8 = (ir.load(bundle / f"{name}.onnx") for name in ("model", "model.int8"))
    assert (resize_channels_last(fp32), resize_channels_last(int8)) == (1, 0)


def test_int8_beyond_its_loss_limit_is_not_kept(
    convnet_checkpoint: Path, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_MIOU_LOSS", -1.0)
    monkeypatch.setattr(quantize_module, "_by_damage", lambda _prepared, _images, names: names)  # slow, tested below
    skipped: list[str] = []
    export(convnet_checkpoint, tmp_path / "bundle", precisions=("int8",), data=places, skipped=skipped.append)
    assert len(skipped) == 1
    assert skipped[0].startswith("model.int8.onnx was not written: int8 loses ")
    assert not (tmp_path / "bundle/model.int8.onnx").exists()
    assert [each.precision for each in read_manifest(tmp_path / "bundle").artifacts] == ["fp32"]


def test_number_of_float_operators_doubles_up_to_a_limit() -> None:
    assert [_exclusion_counts(most) for most in (0, 1, 4, 38)] == [[0], [0, 1], [0, 1, 2, 4], [0, 1, 2, 4, 8, 16, 32]]


def test_most_damaging_operator_is_left_in_float_first(bundle: Path, tmp_path: Path) -> None:
    """The loss is 0 as soon as the one convolution with a stretched input range stays in float."""
    images = [scene(64, 96, seed) for seed in range(4)]
    graph, seen = tmp_path / "stretched.onnx", []
    model = onnx.load(bundle / "model.onnx")
    stretched = _stretch_one_input(model)
    onnx.save(model, graph)

    def loss(file: Path) -> float:
        nodes = onnx.load(file).graph.node
        convolutions = [n for n in nodes if n.op_type == "Conv"]
        assert not _is_quantised(convolutions[0], nodes), "it reads the image"
        in_float = [n.name for n in convolutions[1:] if not _is_quantised(n, nodes)]
        seen.append(in_float)
        return 0.0 if in_float else 1.0

    in_float = quantize(graph, tmp_path / "int8.onnx", images, loss, 0.5)
    assert in_float == 2
    assert seen[0] == []
    assert seen[1] == [stretched]


def _stretch_one_input(model: onnx.ModelProto) -> str:
    """Pad a convolution's input with one value of 1e4, so that 8 bits cannot hold the others; return its name."""
    graph = model.graph
    convolution = [node for node in graph.node if node.op_type == "Conv"][-1]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([[[[1e4]]]], dtype=np.float32), "spike"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 0, 1]), "one_column"))
    pad = onnx.helper.make_node("Pad", [convolution.input[0], "one_column", "ten_thousand"], ["spiked"], name="spike")
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e4, dtype=np.float32), "ten_thousand"))
    convolution.input[0] = "spiked"
    graph.node.insert(list(graph.node).index(convolution), pad)
    return str(convolution.name)


def _is_quantised(node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> bool:
    return any(other.op_type == "DequantizeLinear" and other.output[0] == node.input[1] for other in nodes)


def test_operators_that_would_overflow_stay_in_fp32(tmp_path: Path) -> None:
    """The middle tensor is 9e5, and fp16 ends at 65504. A CPU would not show it: it computes fp16 in fp32."""
    value = onnx.helper.make_tensor_value_info
    constant = {"big": np.full((3, 3, 1, 1), 1e3), "small": np.full((3, 3, 1, 1), 1e-6)}
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["float"], "cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["float"], ["NCHW"], "turn", perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["NCHW", "big"], ["middle"], "overflows"),
        onnx.helper.make_node("Relu", ["middle"], ["positive"], "after"),
        onnx.helper.make_node("Conv", ["positive", "small"], ["back"], "back"),
        onnx.helper.make_node("Cast", ["back"], ["mask"], "out", to=onnx.TensorProto.UINT8),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "overflow",
        [value("image", onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [value("mask", onnx.TensorProto.UINT8, ["N", 3, "H", "W"])],
        [onnx.numpy_helper.from_array(each.astype(np.float32), name) for name, each in constant.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "full.onnx")
    large = large_tensors(tmp_path / "full.onnx", [scene(16, 16, 0)], FP16_SAFE_MAX)
    assert set(large) == {"middle", "positive"}
    converted = convert_to_fp16(model, large)
    by_name = {node.name: node for node in converted.graph.node}
    assert by_name["after"].input[0] == by_name["overflows"].output[0], "fp32 without casts in between"
    assert by_name["back"].input[0] == by_name["after"].output[0]
    constants = {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    assert constants[by_name["overflows"].input[1]] == constants[by_name["back"].input[1]] == onnx.TensorProto.FLOAT


def test_shape_derived_tensors_do_not_depend_on_pixels() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N,C,H,W] x) => (float[n,c,h,w] y) { s = Shape (x) '
        "o = Constant <value_float = 1.0> () f = Cast <to = 1> (s) p = Mul (f, o) y = Mul (x, p) }"
    )
    assert shape_derived_tensors(model.graph) == {"", "s", "o", "f", "p"}


def test_fp16_weights_have_the_fp16_validation_limit(
    convnet_checkpoint: Path, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "FP16_VALIDATION_AGREEMENT", 0.98)
    export(convnet_checkpoint, tmp_path / "bundle", weights="fp16", data=places)
    (stored,) = read_manifest(tmp_path / "bundle").artifacts
    assert stored.validation is not None
    assert 0.98 <= stored.validation.mask < artifacts.VALIDATION_AGREEMENT


def test_failing_conversion_skips_only_its_own_graph(
    convnet_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: onnx.ModelProto, large: list[str]) -> onnx.ModelProto:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(artifacts, "convert_to_fp16", fail)
    skipped: list[str] = []
    export(convnet_checkpoint, tmp_path / "bundle", precisions=("fp16",), skipped=skipped.append)
    assert skipped == ["model.fp16.onnx was not written: no such operator"]
    assert sorted(path.name for path in (tmp_path / "bundle").glob("*.onnx")) == ["model.onnx"]


def test_int8_keeps_attention_in_float_and_quantises_its_projections(vit_bundle: Path, tmp_path: Path) -> None:
    in_float = quantize(vit_bundle / "model.onnx", tmp_path / "int8.onnx", [scene(64, 96, 0)], lambda _: 0.0, 0.1)
    assert in_float == 1, "the operator that reads the image"
    graph = onnx.load(tmp_path / "int8.onnx").graph
    producers = {node.output[0]: node for node in graph.node}
    softmaxes = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    weighted_values = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] in softmaxes]
    assert len(weighted_values) == 2
    quantized = [
        node
        for node in graph.node
        if node.op_type == "MatMul"
        and all(producers.get(name) and producers[name].op_type == "DequantizeLinear" for name in node.input)
    ]
    assert len(quantized) == 8, "four projections in each of two blocks"
    _, count = fuse_attention(onnx.load(tmp_path / "int8.onnx"))
    assert count == 2


def test_int8_without_data_is_refused(convnet_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="give --data DATASET"):
        export(convnet_checkpoint, tmp_path / "bundle", precisions=("int8",))
    assert list(tmp_path.iterdir()) == []


def test_data_set_with_other_classes_is_refused(convnet_checkpoint: Path, places: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    (other / "classes.toml").write_text('[[classes]]\nname = "moon"\ncolor = [1, 2, 3]\n')
    with pytest.raises(DataError, match="its classes are not the checkpoint's"):
        Validator(other, load(convnet_checkpoint).taxonomy, {}, _nothing)


def test_data_set_without_a_labelled_validation_pixel_is_rejected(
    convnet_checkpoint: Path, places: Path, tmp_path: Path
) -> None:
    shutil.copytree(places, tmp_path / "places")
    for path in (tmp_path / "places/masks").glob("val*.png"):
        Image.new("L", VAL_SIZE[::-1], 255).save(path)
    loaded = load(convnet_checkpoint)
    with pytest.raises(DataError, match="every pixel of the validation masks is ignored; label the images"):
        Validator(tmp_path / "places", loaded.taxonomy, DATA, eager(predictor_of(convnet_checkpoint)))


def test_validation_of_a_predictor_with_half_of_the_pixels_wrong(places: Path, convnet_checkpoint: Path) -> None:
    """The predictor is PyTorch with every class shifted by one in the upper half of the image."""
    predict = eager(predictor_of(convnet_checkpoint))
    calls: list[None] = []
    taxonomy = load(convnet_checkpoint).taxonomy
    validator = Validator(places, taxonomy, DATA, predict, at_work=lambda: calls.append(None))
    assert (validator.scores.miou, validator.images) == (1.0, SPLITS["val"])
    assert len(calls) == SPLITS["val"]

    def half_wrong(image_NHW3: Bytes) -> Outputs:
        mask_NHW, confidence_NHW, _ = predict(image_NHW3)
        mask_NHW[:, : VAL_SIZE[0] // 2] = (mask_NHW[:, : VAL_SIZE[0] // 2] + 1) % len(NAMES)
        return Outputs(mask_NHW, confidence_NHW)

    found = validator.measure(half_wrong)
    assert found.mask == 0.5
    assert found.miou < 0.5
    assert found.miou_lost == 1 - found.miou
    assert found.classes == len(NAMES)
    assert len(validator.calibration_images()) == SPLITS["labelled"] + SPLITS["unlabelled"]


def test_pixel_of_a_class_that_no_label_shows_costs_miou_but_counts_as_no_loss(
    places: Path, convnet_checkpoint: Path, tmp_path: Path
) -> None:
    """Else one pixel would refuse an int8 graph: with k classes it lowers the mIoU by 1 / (k + 1)."""
    predict, root = eager(predictor_of(convnet_checkpoint)), tmp_path / "places"
    shutil.copytree(places, root)
    for file in (root / "masks").glob("val*.png"):
        ids_HW = np.array(Image.open(file))
        Image.fromarray(np.where(ids_HW == 1, 255, ids_HW).astype(np.uint8)).save(file)
    validator = Validator(root, load(convnet_checkpoint).taxonomy, DATA, without_class_1(predict))
    before = validator.scores

    def one_pixel(image_NHW3: Bytes) -> Outputs:
        mask_NHW, confidence_NHW, _ = predict(image_NHW3)
        labelled = np.flatnonzero(mask_NHW != 1)
        mask_NHW[mask_NHW == 1] = 0
        mask_NHW.flat[labelled[0]] = 1
        return Outputs(mask_NHW, confidence_NHW)

    found = validator.measure(one_pixel)
    counted = sum(iou is not None for iou in before.per_class.values())
    assert found.classes == counted + 1
    assert found.miou == pytest.approx(counted / (counted + 1), abs=0.01)
    assert found.miou_lost < 0.01


def without_class_1(predict: Predict) -> Predict:
    """Predict class 0 instead of class 1, which the labels of the test ignore."""

    def other(image_NHW3: Bytes) -> Outputs:
        mask_NHW, confidence_NHW, _ = predict(image_NHW3)
        mask_NHW[mask_NHW == 1] = 0
        return Outputs(mask_NHW, confidence_NHW)

    return other


def test_samples_are_evenly_spaced_over_the_list() -> None:
    samples = tuple(Sample(str(number), Path(), None) for number in range(10))
    assert [sample.name for sample in _evenly_spaced(samples, 4)] == ["0", "2", "5", "7"]
    assert _evenly_spaced(samples, 10) == samples


def test_quantization_error_lists_the_losses(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "int8.onnx"
    with pytest.raises(QuantizationError, match=r"int8 loses 0\.25 with 1 of \d+ operators in float, 0\.25 with "):
        quantize(bundle / "model.onnx", file, [scene(64, 96, 0)], lambda _: 0.25, 0.1)
    assert not file.exists()


def test_only_products_with_weights_are_quantised(bundle: Path) -> None:
    assert set(QUANTIZED) == {"Conv", "MatMul", "Gemm"}
    assert OnnxPredictor(bundle / "model.int8.onnx")(scene(33, 57, 0)[None])[0].shape == (1, 33, 57)


def _nothing(image_NHW3: Bytes) -> Outputs:
    raise AssertionError("must not be called")
