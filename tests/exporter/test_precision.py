"""fp16 and int8 beside fp32: what they are made of, how they are judged, and when they are not kept."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from exporter import artifacts
from exporter.attention import fuse_attention
from exporter.bundle import BundleError, read_manifest
from exporter.carried import ACTIVATIONS
from exporter.classes_last import put_classes_last
from exporter.export import eager, export
from exporter.half import KEPT_FULL, LARGE, halved
from exporter.judge import DataError, Judge, _spread
from exporter.probe import Bytes, Ids, scene
from exporter.quantize import QUANTISED, QuantisationError, _growing, quantise
from exporter.ranges import large_tensors
from exporter.runtime import OnnxPredictor
from exporter.verify import verify
from tests.exporter.conftest import COLORS, NAMES, predictor_of
from trainer.checkpoint import load
from trainer.data.dataset import Sample

SPLITS = {"labelled": 5, "unlabelled": 3, "val": 3}
VAL_SIZE = (120, 160)
DATA = {"labelled": "labelled", "unlabelled": "unlabelled", "val": "val"}


@pytest.fixture(scope="module")
def places(convnet_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose masks are what PyTorch makes of its images, so that PyTorch's mIoU is 1."""
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
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # A network of random weights has little between its classes: no int8 would be kept by the bound for real ones.
        patch.setattr(artifacts, "MIOU_LOST", 0.3)
        patch.setattr(artifacts, "HALF_AGREEMENT", 0.98)
        export(convnet_checkpoint, out, precisions=("int8", "fp16"), data=places, refused=said.append)
    assert said == []
    return out


def test_the_manifest_tells_of_each(bundle: Path) -> None:
    full, half, int8 = read_manifest(bundle).artifacts
    assert [full.precision, half.precision, int8.precision] == ["fp32", "fp16", "int8"]
    assert [each.file for each in (full, half, int8)] == ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]
    assert half.bytes < 0.65 * full.bytes
    assert int8.bytes < 0.65 * full.bytes
    for each in (full, half, int8):
        assert "maskloop.classes" in {prop.key for prop in onnx.load(bundle / each.file).metadata_props}
        assert each.validation is not None
        assert each.validation.images == SPLITS["val"]
        assert each.validation.miou_lost == pytest.approx(1 - each.validation.miou)
    assert full.validation is not None
    assert full.validation.mask >= 0.9999
    assert (full.probe_agreement, full.left_in_float) == (None, None)
    assert half.probe_agreement == artifacts.HALF_PROBE_AGREEMENT
    assert int8.probe_agreement == pytest.approx(int8.agreement.mask - artifacts.OTHER_CPU)
    assert int8.left_in_float is not None


def test_verify_asks_each_graph(bundle: Path) -> None:
    found = verify(bundle)
    assert list(found.agreement) == ["model.onnx", "model.fp16.onnx", "model.int8.onnx"]
    assert found.mask_agreement == found.agreement["model.onnx"]


def test_half_computes_in_half_but_where_it_hurts(bundle: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(bundle / "model.fp16.onnx")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(types[node.input[1]] == onnx.TensorProto.FLOAT16 for node in convolutions)
    kept = [node for node in graph.node if node.op_type in {*KEPT_FULL, "ReduceMax", "Exp"}]
    assert {"Resize", "ReduceMax", "Exp"} <= {node.op_type for node in kept}
    assert all(types.get(node.output[0]) != onnx.TensorProto.FLOAT16 for node in kept)


def test_int8_has_integer_weights_by_channel(bundle: Path) -> None:
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
        assert largest == 127 if values.shape[1] == 1 else largest <= 64, "seven bits: others overflow without VNNI"
        assert tensors[weight.input[1]].dims[0] == values.shape[0]


def test_int8_has_no_arithmetic_for_what_cuts_off(bundle: Path) -> None:
    """A convolution's integers begin where Relu or Clip would cut, so that the next one takes them as they are."""
    full, int8 = (onnx.load(bundle / f"{name}.onnx").graph.node for name in ("model", "model.int8"))
    readers = Counter(name for node in full for name in node.input)
    convolutions = {node.output[0] for node in full if node.op_type == "Conv" and readers[node.output[0]] == 1}
    cut = [node.output[0] for node in full if node.op_type in ACTIVATIONS and node.input[0] in convolutions]
    assert cut
    assert not {node.output[0] for node in int8 if node.op_type in ACTIVATIONS} & set(cut)


def test_only_int8_has_its_classes_last(bundle: Path) -> None:
    """The fp32 graph is for GPUs too."""
    full, int8 = (onnx.load(bundle / f"{name}.onnx") for name in ("model", "model.int8"))
    assert (put_classes_last(full), put_classes_last(int8)) == (1, 0)


def test_int8_is_not_kept_beyond_its_bound(
    convnet_checkpoint: Path, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MIOU_LOST", -1.0)
    said: list[str] = []
    export(convnet_checkpoint, tmp_path / "bundle", precisions=("int8",), data=places, refused=said.append)
    assert len(said) == 1
    assert said[0].startswith("model.int8.onnx was not written: int8 loses ")
    assert not (tmp_path / "bundle/model.int8.onnx").exists()
    assert [each.precision for each in read_manifest(tmp_path / "bundle").artifacts] == ["fp32"]


def test_ever_more_is_left_in_float_but_never_most() -> None:
    assert [_growing(most) for most in (0, 1, 4, 38)] == [[0], [0, 1], [0, 1, 2, 4], [0, 1, 2, 4, 8, 16, 32]]


def test_what_hurts_most_is_left_in_float_first(bundle: Path, tmp_path: Path) -> None:
    """The judge here is content as soon as the one convolution that we spoilt is left alone."""
    images = [scene(64, 96, seed) for seed in range(4)]
    graph, seen = tmp_path / "spoilt.onnx", []
    model = onnx.load(bundle / "model.onnx")
    spoilt = _stretch_one_input(model)
    onnx.save(model, graph)

    def lost(file: Path) -> float:
        nodes = onnx.load(file).graph.node
        convolutions = [n for n in nodes if n.op_type == "Conv"]
        assert not _is_quantised(convolutions[0], nodes), "it reads the image"
        in_float = [n.name for n in convolutions[1:] if not _is_quantised(n, nodes)]
        seen.append(in_float)
        return 0.0 if in_float else 1.0

    left = quantise(graph, tmp_path / "int8.onnx", images, lost, 0.5)
    assert left == 2
    assert seen[0] == []
    assert seen[1] == [spoilt]


def _stretch_one_input(model: onnx.ModelProto) -> str:
    """Add one pixel of ten thousand to what a convolution sees: eight bits then hold nothing else. Its name."""
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


def test_what_would_overflow_in_half_stays_full(tmp_path: Path) -> None:
    """A CPU would not notice: it computes halves in fp32. The middle tensor is 9e5, fp16 ends at 65504."""
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
    large = large_tensors(tmp_path / "full.onnx", [scene(16, 16, 0)], LARGE)
    assert set(large) == {"middle", "positive"}
    half = halved(model, large)
    by_name = {node.name: node for node in half.graph.node}
    assert by_name["after"].input[0] == by_name["overflows"].output[0], "in fp32, with no half between them"
    assert by_name["back"].input[0] == by_name["after"].output[0]
    constants = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert constants[by_name["overflows"].input[1]] == constants[by_name["back"].input[1]] == onnx.TensorProto.FLOAT


def test_stored_halves_are_judged_as_halves(
    convnet_checkpoint: Path, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "HALF_AGREEMENT", 0.98)
    export(convnet_checkpoint, tmp_path / "bundle", weights="fp16", data=places)
    (stored,) = read_manifest(tmp_path / "bundle").artifacts
    assert stored.validation is not None
    assert 0.98 <= stored.validation.mask < artifacts.AGREEMENT


def test_a_tool_that_fails_costs_its_own_graph_alone(
    convnet_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: onnx.ModelProto, large: list[str]) -> onnx.ModelProto:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(artifacts, "halved", fail)
    said: list[str] = []
    export(convnet_checkpoint, tmp_path / "bundle", precisions=("fp16",), refused=said.append)
    assert said == ["model.fp16.onnx was not written: no such operator"]
    assert sorted(path.name for path in (tmp_path / "bundle").glob("*.onnx")) == ["model.onnx"]


def test_attention_stays_in_float(vit_bundle: Path, tmp_path: Path) -> None:
    """And the products with weights around it do not."""
    left = quantise(vit_bundle / "model.onnx", tmp_path / "int8.onnx", [scene(64, 96, 0)], lambda _: 0.0, 0.1)
    assert left == 1, "what reads the image"
    graph = onnx.load(tmp_path / "int8.onnx").graph
    producers = {node.output[0]: node for node in graph.node}
    softmaxes = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    mixed = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] in softmaxes]
    assert len(mixed) == 2
    quantised = [
        node
        for node in graph.node
        if node.op_type == "MatMul"
        and all(producers.get(name) and producers[name].op_type == "DequantizeLinear" for name in node.input)
    ]
    assert len(quantised) == 8, "four products with weights in each of two blocks"
    _, count = fuse_attention(onnx.load(tmp_path / "int8.onnx"))
    assert count == 2


def test_int8_without_data_is_refused(convnet_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="give --data DATASET"):
        export(convnet_checkpoint, tmp_path / "bundle", precisions=("int8",))
    assert list(tmp_path.iterdir()) == []


def test_another_data_sets_classes_are_refused(convnet_checkpoint: Path, places: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    (other / "classes.toml").write_text('[[classes]]\nname = "moon"\ncolor = [1, 2, 3]\n')
    with pytest.raises(DataError, match="its classes are not the checkpoint's"):
        Judge(other, load(convnet_checkpoint).taxonomy, {}, _nothing)


def test_the_judge_by_hand(places: Path, convnet_checkpoint: Path) -> None:
    """A predictor that is PyTorch but for one class more, in the upper half: half the pixels agree."""
    predict = eager(predictor_of(convnet_checkpoint))
    judge = Judge(places, load(convnet_checkpoint).taxonomy, DATA, predict)
    assert (judge.miou, judge.images) == (1.0, SPLITS["val"])

    def half_wrong(image_NHW3: Bytes) -> tuple[Ids, Bytes]:
        mask_NHW, confidence_NHW = predict(image_NHW3)
        mask_NHW[:, : VAL_SIZE[0] // 2] = (mask_NHW[:, : VAL_SIZE[0] // 2] + 1) % len(NAMES)
        return mask_NHW, confidence_NHW

    found = judge(half_wrong)
    assert found.mask == 0.5
    assert found.miou < 0.5
    assert found.miou_lost == 1 - found.miou
    assert len(judge.calibration_images()) == SPLITS["labelled"] + SPLITS["unlabelled"]


def test_images_are_taken_from_the_whole_list() -> None:
    samples = tuple(Sample(str(number), Path(), None) for number in range(10))
    assert [sample.name for sample in _spread(samples, 4)] == ["0", "2", "5", "7"]
    assert _spread(samples, 10) == samples


def test_quantisation_says_how_far_it_was(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "int8.onnx"
    with pytest.raises(QuantisationError, match=r"int8 loses 0\.25 with 1 of \d+ operators in float, 0\.25 with "):
        quantise(bundle / "model.onnx", file, [scene(64, 96, 0)], lambda _: 0.25, 0.1)
    assert not file.exists()


def test_only_products_with_weights_are_quantised(bundle: Path) -> None:
    assert set(QUANTISED) == {"Conv", "MatMul", "Gemm"}
    assert OnnxPredictor(bundle / "model.int8.onnx")(scene(33, 57, 0)[None])[0].shape == (1, 33, 57)


def _nothing(image_NHW3: Bytes) -> tuple[Ids, Bytes]:
    raise AssertionError("must not be asked")
