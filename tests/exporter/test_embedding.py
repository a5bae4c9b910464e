"""The embedding in a bundle: manifest, probe, checks, and graphs in other precisions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from torch import nn

from exporter import export as export_module
from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.embedding_branch import embedding_nodes
from exporter.export import eager, export
from exporter.manifest import Manifest, ManifestError
from exporter.probe import Embedding, cosine, embedding_cosine, scene
from exporter.runtime import OnnxPredictor
from exporter.verify import verified_table, verify
from tests.exporter.conftest import GOLDEN, predictor_of


@pytest.fixture
def bundle(vit_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(vit_bundle, tmp_path / "bundle")


def rewrite(bundle: Path) -> None:
    """Update the checksums in the manifest."""
    manifest = read_manifest(bundle)
    artifacts = tuple(each.model_copy(update={"sha256": sha256_of(bundle / each.file)}) for each in manifest.artifacts)
    probe = manifest.probe.model_copy(update={"sha256": sha256_of(bundle / "probe.npz")})
    new = manifest.model_copy(update={"artifacts": artifacts, "probe": probe})
    (bundle / "manifest.json").write_text(new.to_json())


def turn(graph: Path) -> None:
    """Change the sign of half of the embedding: the masks stay."""
    model = onnx.load(graph)
    last = next(node for node in model.graph.node if node.output[0] == "embedding")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, -1] * 12, np.float32), "signs"))
    model.graph.node.remove(last)
    model.graph.node.append(onnx.helper.make_node("Mul", [last.input[0], "signs"], ["turned"]))
    last.input[0] = "turned"
    model.graph.node.append(last)
    onnx.save(model, graph)


def test_manifest_and_card_name_the_output_and_its_length(vit_bundle: Path) -> None:
    manifest = json.loads((vit_bundle / "manifest.json").read_text())
    assert manifest["embedding"] == {"output": "embedding", "dimensions": 24}
    for artifact in manifest["artifacts"]:
        assert artifact["agreement"]["embedding_cosine"] > 0.999999
        assert artifact["min_embedding_cosine"] == 0.9999
        graph = onnx.load(vit_bundle / artifact["file"]).graph
        sides = [side.dim_param or side.dim_value for side in graph.output[2].type.tensor_type.shape.dim]
        assert (graph.output[2].name, sides) == ("embedding", ["N", 24])
    assert "| Embedding | 24 numbers for each image" in (vit_bundle / "MODEL_CARD.md").read_text()


def test_probe_contains_pytorchs_embeddings(convnet_bundle: Path, convnet_checkpoint: Path) -> None:
    predict = eager(predictor_of(convnet_checkpoint))
    with np.load(convnet_bundle / "probe.npz") as probe:
        for number in range(4):
            expected_1D = predict(probe[f"image_{number}"][None]).embedding
            assert expected_1D is not None
            assert np.array_equal(probe[f"embedding_{number}"], expected_1D[0])


def test_verify_reports_the_cosine_of_each_graph(vit_bundle: Path) -> None:
    verified = verify(vit_bundle)
    assert list(verified.embedding_cosine) == ["model.onnx", "model.fused.onnx"]
    assert min(verified.embedding_cosine.values()) > 0.999999
    assert "| cosine of embeddings |" in verified_table(verified)


def test_bundle_without_embeddings_stays_valid() -> None:
    verified = verify(GOLDEN)
    assert verified.manifest.embedding is None
    assert verified.embedding_cosine == {}
    assert "cosine" not in verified_table(verified)
    assert OnnxPredictor(GOLDEN / "model.onnx")(scene(30, 40, seed=0)[None]).embedding is None


def test_verify_rejects_a_graph_with_other_embeddings(bundle: Path) -> None:
    turn(bundle / "model.onnx")
    rewrite(bundle)
    with pytest.raises(BundleError, match=r"model\.onnx: the cosine of an embedding .* 0\.9999 is required"):
        verify(bundle)


def test_verify_rejects_a_graph_without_the_embedding(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    del model.graph.output[2]
    onnx.save(model, bundle / "model.onnx")
    rewrite(bundle)
    with pytest.raises(BundleError, match="an embedding is missing or does not have the manifest's 24 dimensions"):
        verify(bundle)


def test_verify_rejects_a_probe_without_embeddings(bundle: Path) -> None:
    with np.load(bundle / "probe.npz") as stored:
        arrays = {name: stored[name] for name in stored if "embedding" not in name}
    np.savez_compressed(bundle / "probe.npz", **arrays)
    rewrite(bundle)
    with pytest.raises(BundleError, match="an embedding is missing"):
        verify(bundle)


def test_graph_with_other_embeddings_is_not_written(
    vit_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_graph_once: Callable[..., None]
) -> None:
    def write_turned(predictor: nn.Module, file: Path, *, multiple: int, metadata: dict[str, str]) -> None:
        write_graph_once(predictor, file, multiple=multiple, metadata=metadata)
        turn(file)

    monkeypatch.setattr(export_module, "write_graph", write_turned)
    with pytest.raises(BundleError, match=r"the cosine of its embedding of a probe image .* no bundle was written"):
        export(vit_checkpoint, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_manifest_needs_the_minimum_of_each_graph(vit_bundle: Path) -> None:
    fields = json.loads((vit_bundle / "manifest.json").read_text())
    del fields["artifacts"][1]["min_embedding_cosine"]
    with pytest.raises(ManifestError, match="every artifact must have min_embedding_cosine"):
        Manifest.from_json(json.dumps(fields))


def test_only_the_embedding_needs_the_pooling_and_the_norm(convnet_bundle: Path) -> None:
    kinds = [node.op_type for node in embedding_nodes(ir.load(convnet_bundle / "model.onnx").graph)]
    assert {"ReduceMean", "ReduceL2", "Div", "Cast"} <= set(kinds)
    assert not {"Conv", "Resize", "ArgMax"} & set(kinds)
    assert embedding_nodes(ir.load(GOLDEN / "model.onnx").graph) == set()


def test_cosines_worked_by_hand() -> None:
    def vector(*values: float) -> Embedding:
        return np.array(values, np.float16)

    assert cosine(vector(3, 4), vector(4, 3)) == pytest.approx(0.96)
    assert cosine(vector(0.5, 0), vector(8, 0)) == 1
    assert cosine(vector(1, 0), vector(0, 0)) == -1
    assert cosine(vector(0, 0), vector(0, 0)) == 1, "the map of a network may be zero"
    assert cosine(vector(np.inf, 0), vector(np.inf, 0)) == -1
    assert cosine(vector(1, 0), vector(np.inf, 0)) == cosine(vector(1, 0), vector(np.nan, 0)) == -1
    pair = [vector(1, 0), vector(3, 4)]
    assert embedding_cosine(pair, [vector(2, 0), vector(4, 3)]) == pytest.approx(0.96)
    assert embedding_cosine([None], [None]) is None
    with pytest.raises(ValueError, match="missing"):
        embedding_cosine(pair, [vector(1, 0), None])
    with pytest.raises(ValueError, match="another length"):
        embedding_cosine(pair, [vector(1, 0, 0), vector(3, 4)])
