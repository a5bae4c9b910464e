"""Model repositories: exports add version folders, keep existing files and leave no partial ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.bundle import BundleError, read_manifest, sha256_of
from exporter.manifest import Embedding, Manifest, Precision
from exporter.triton.config import Options
from exporter.triton.repository import safe_name, write_repository
from tests.exporter.conftest import GOLDEN
from tests.exporter.test_command_line import lines, run
from tests.exporter.test_triton_config import SCHEMA, graph_file, parameters, parsed


def unchanged(manifest: Manifest) -> Manifest:
    return manifest


def another_bundle(folder: Path, change: Callable[[Manifest], Manifest] = unchanged) -> Path:
    """The golden bundle with another version, and a graph of other bytes with equal results."""
    shutil.copytree(GOLDEN, folder)
    graph = onnx.load(folder / "model.onnx")
    graph.doc_string = folder.name
    onnx.save(graph, folder / "model.onnx")
    manifest = read_manifest(folder)
    artifact = manifest.artifacts[0].model_copy(
        update={"sha256": sha256_of(folder / "model.onnx"), "bytes": (folder / "model.onnx").stat().st_size}
    )
    manifest = manifest.model_copy(update={"version": f"version-{folder.name}", "artifacts": (artifact,)})
    (folder / "manifest.json").write_text(change(manifest).to_json())
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


ONE = {"golden/config.pbtxt", "golden/labels.txt", "golden/1/model.onnx", "golden/1/manifest.json"}
ENCODED = {"golden_encoded/config.pbtxt", "golden_encoded/1/model.py"}


def test_a_bundle_becomes_two_models(tmp_path: Path) -> None:
    written = write_repository(GOLDEN, tmp_path / "deep" / "repo")
    assert (written.model, written.encoded, written.version) == ("golden", "golden_encoded", 1)
    assert (written.is_new, written.is_listed) == (True, True)
    repo = tmp_path / "deep" / "repo"
    assert files(repo) == ONE | ENCODED
    assert (repo / "golden/1/model.onnx").read_bytes() == (GOLDEN / "model.onnx").read_bytes()
    assert (repo / "golden/1/manifest.json").read_bytes() == (GOLDEN / "manifest.json").read_bytes()
    assert {path.name for path in repo.iterdir()} == {"golden", "golden_encoded"}
    for model in repo.iterdir():
        assert parsed((model / "config.pbtxt").read_text()).name == model.name


def test_another_bundle_becomes_the_next_version_and_changes_no_other(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write_repository(GOLDEN, repo, options=Options(kind="gpu"))
    before = content(repo)
    written = write_repository(another_bundle(tmp_path / "second"), repo, name="golden")
    assert (written.version, written.is_new, written.is_listed) == (2, True, True)
    after = content(repo)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"golden/2/model.onnx", "golden/2/manifest.json", "golden/config.pbtxt"}
    listed = parameters(parsed((repo / "golden/config.pbtxt").read_text()))
    assert listed["version_1"] == f"{read_manifest(GOLDEN).version} model.onnx"
    assert listed["version_2"] == "version-second model.onnx"
    assert "KIND_GPU" in (repo / "golden/config.pbtxt").read_text()
    assert write_repository(another_bundle(tmp_path / "third"), repo).version == 3


def test_exporting_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path)
    before = content(tmp_path)
    written = write_repository(GOLDEN, tmp_path)
    assert (written.version, written.is_new) == (1, False)
    assert content(tmp_path) == before


def test_edited_config_is_kept_and_options_without_effect_are_rejected(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path / "repo")
    file = tmp_path / "repo/golden/config.pbtxt"
    file.write_text(file.read_text().replace("max_batch_size: 4", "max_batch_size: 7  # tried out"))
    second = another_bundle(tmp_path / "second")
    with pytest.raises(ValueError, match="--rewrite-config"):
        write_repository(second, tmp_path / "repo", options=Options(max_batch_size=9))
    assert not (tmp_path / "repo/golden/2").exists()
    write_repository(second, tmp_path / "repo")
    assert "max_batch_size: 7  # tried out" in file.read_text()
    write_repository(second, tmp_path / "repo", options=Options(max_batch_size=9), rewrite_config=True)
    for model in ("golden", "golden_encoded"):
        assert parsed((tmp_path / "repo" / model / "config.pbtxt").read_text()).max_batch_size == 9
    assert set(parameters(parsed(file.read_text()))) >= {"version_1", "version_2"}


def test_config_without_markers_is_kept_and_reported(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path / "repo")
    file = tmp_path / "repo/golden/config.pbtxt"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("#")))
    before = file.read_text()
    ran = run("triton", another_bundle(tmp_path / "second"), "--out", tmp_path / "repo", "--name", "golden")
    assert ran.returncode == 0, ran.stderr
    assert "does not list this version" in ran.stderr
    assert file.read_text() == before
    assert (tmp_path / "repo/golden/2").is_dir()


def test_other_classes_need_another_name(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path / "repo")
    before = content(tmp_path / "repo")

    def renamed(manifest: Manifest) -> Manifest:
        first = manifest.classes[0].model_copy(update={"name": "heaven"})
        return manifest.model_copy(update={"classes": (first, *manifest.classes[1:])})

    other = another_bundle(tmp_path / "other", renamed)
    with pytest.raises(BundleError, match=r"other classes or colours than this bundle.* --name"):
        write_repository(other, tmp_path / "repo")
    assert content(tmp_path / "repo") == before
    assert write_repository(other, tmp_path / "repo", name="heaven").version == 1


def test_another_value_range_needs_another_name(tmp_path: Path) -> None:
    """The model for encoded images decodes for all versions."""
    write_repository(GOLDEN, tmp_path / "repo")
    other = another_bundle(tmp_path / "other", lambda manifest: manifest.model_copy(update={"value_range": (0.0, 1.0)}))
    with pytest.raises(BundleError, match=r"other black and white values \(data\.range\) than this bundle.* --name"):
        write_repository(other, tmp_path / "repo")
    written = write_repository(other, tmp_path / "repo", name="floats")
    config = parsed((tmp_path / "repo" / written.encoded / "config.pbtxt").read_text())
    assert json.loads(parameters(config)["value_range"]) == [0, 1]


def test_other_tensors_need_another_name(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path)
    graph_file(tmp_path / "golden/1/model.onnx", onnx.TensorProto.UINT16)
    with pytest.raises(BundleError, match="other inputs or outputs"):
        write_repository(GOLDEN, tmp_path)
    assert not (tmp_path / "golden/2").exists()


def test_embedding_is_an_output_of_the_tensor_model(vit_bundle: Path, tmp_path: Path) -> None:
    write_repository(vit_bundle, tmp_path, name="places")
    config = parsed((tmp_path / "places/config.pbtxt").read_text())
    found = [(value.name, value.data_type, list(value.dims)) for value in config.output]
    assert found[2] == ("embedding", SCHEMA.TYPE_FP16, [24])


def test_versions_with_and_without_embedding_share_a_configuration_that_does_not_list_it(tmp_path: Path) -> None:
    """Triton rejects a version without a listed output, and accepts one with outputs that are not listed."""
    write_repository(GOLDEN, tmp_path / "repo")
    before = (tmp_path / "repo/golden/config.pbtxt").read_text()
    newer = with_constant_embedding(tmp_path / "newer")
    assert write_repository(newer, tmp_path / "repo").version == 2
    assert "embedding" not in (tmp_path / "repo/golden/config.pbtxt").read_text()
    assert write_repository(another_bundle(tmp_path / "older"), tmp_path / "repo").version == 3
    assert write_repository(newer, tmp_path / "repo", rewrite_config=True).version == 4
    assert 'name: "embedding" data_type: TYPE_FP16 dims: [2]' in (tmp_path / "repo/golden/config.pbtxt").read_text()
    with pytest.raises(BundleError, match=r"other embeddings \(config.pbtxt lists their length\)"):
        write_repository(another_bundle(tmp_path / "oldest"), tmp_path / "repo")
    assert 'name: "mask"' in before


def with_constant_embedding(folder: Path) -> Path:
    """The golden bundle with an embedding of two numbers, the same for each image."""
    bundle = another_bundle(folder)
    model = onnx.load(bundle / "model.onnx")
    vector = onnx.numpy_helper.from_array(np.array([0.6, 0.8], np.float16), "vector")
    model.graph.initializer.append(vector)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2], np.int64), "dimensions"))
    value = onnx.helper.make_node
    model.graph.node.extend(
        [
            value("Shape", ["image"], ["images"], start=0, end=1),
            value("Concat", ["images", "dimensions"], ["table"], axis=0),
            value("Expand", ["vector", "table"], ["embedding"]),
        ]
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT16, ["N", 2]))
    onnx.save(model, bundle / "model.onnx")
    with np.load(bundle / "probe.npz") as stored:
        arrays = dict(stored)
    arrays |= {name.replace("mask", "embedding"): np.array([0.6, 0.8], np.float16) for name in arrays if "mask" in name}
    np.savez_compressed(bundle / "probe.npz", **arrays)
    manifest = read_manifest(bundle)
    (artifact,) = manifest.artifacts
    file = bundle / "model.onnx"
    changes = {"sha256": sha256_of(file), "bytes": file.stat().st_size, "min_embedding_cosine": 0.9999}
    probe = manifest.probe.model_copy(update={"sha256": sha256_of(bundle / "probe.npz")})
    embedding = Embedding(output="embedding", dimensions=2)
    new = {"artifacts": (artifact.model_copy(update=changes),), "probe": probe, "embedding": embedding}
    (bundle / "manifest.json").write_text(manifest.model_copy(update=new).to_json())
    return bundle


@pytest.mark.parametrize("name", ["golden", "golden_encoded"])
def test_foreign_folder_is_not_changed(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / name / "1" / "model.plan").write_bytes(b"somebody's")
    with pytest.raises(BundleError, match="remove it, or give another --name"):
        write_repository(GOLDEN, tmp_path)
    assert files(tmp_path) == {f"{name}/1/model.plan"}


def test_name_of_another_models_encoded_model_is_rejected(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path, name="golden_encoded")
    with pytest.raises(BundleError, match="remove it, or give another --name"):
        write_repository(GOLDEN, tmp_path, name="golden")
    assert not (tmp_path / "golden").exists()


def test_full_disk_leaves_no_partial_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(BundleError, match="the disk is full; free space"):
            write_repository(GOLDEN, tmp_path / "repo")
    assert files(tmp_path / "repo") == set()
    write_repository(GOLDEN, tmp_path / "repo")
    before, second = content(tmp_path / "repo"), another_bundle(tmp_path / "second")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(BundleError, match="the disk is full; free space"):
            write_repository(second, tmp_path / "repo")
    assert content(tmp_path / "repo") == before
    assert write_repository(second, tmp_path / "repo").version == 2


def test_invalid_bundle_is_rejected_before_anything_is_written(tmp_path: Path) -> None:
    bundle = shutil.copytree(GOLDEN, tmp_path / "bundle")
    with (bundle / "model.onnx").open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(BundleError, match="sha256"):
        write_repository(bundle, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def with_other_graphs(bundle: Path) -> Path:
    """Add two graphs to the bundle, one marked as fused attention and one as int8."""
    manifest = read_manifest(bundle)
    artifacts = [manifest.artifacts[0]]
    for name in ("fused", "int8"):
        graph = onnx.load(bundle / "model.onnx")
        graph.doc_string += name * 10
        file = bundle / f"model.{name}.onnx"
        onnx.save(graph, file)
        about = {"file": file.name, "sha256": sha256_of(file), "bytes": file.stat().st_size}
        kind = {"fused_attention": 2} if name == "fused" else {"precision": name}
        artifacts.append(artifacts[0].model_copy(update=about | kind))
    (bundle / "manifest.json").write_text(manifest.model_copy(update={"artifacts": tuple(artifacts)}).to_json())
    return bundle


@pytest.mark.parametrize(
    ("options", "precision", "file"),
    [
        (None, None, "model.fused.onnx"),
        (Options(kind="gpu", tensorrt=True), None, "model.onnx"),
        (None, "int8", "model.int8.onnx"),
    ],
)
def test_graph_is_chosen_by_precision_and_tensorrt(
    tmp_path: Path, options: Options | None, precision: Precision | None, file: str
) -> None:
    """TensorRT lacks onnxruntime's fused attention; a later export reuses the choice of the first."""
    repo = tmp_path / "repo"
    first = with_other_graphs(another_bundle(tmp_path / "first"))
    write_repository(first, repo, name="places", options=options, precision=precision)
    assert (repo / "places/1/model.onnx").read_bytes() == (first / file).read_bytes()
    second = with_other_graphs(another_bundle(tmp_path / "second"))
    write_repository(second, repo, name="places")
    assert (repo / "places/2/model.onnx").read_bytes() == (second / file).read_bytes()
    listed = parameters(parsed((repo / "places/config.pbtxt").read_text()))
    assert (listed["version_1"], listed["version_2"]) == (f"version-first {file}", f"version-second {file}")


def test_tensorrt_needs_the_fp32_graph(tmp_path: Path) -> None:
    bundle = with_other_graphs(another_bundle(tmp_path / "bundle"))
    with pytest.raises(ValueError, match="give --precision fp32, not int8"):
        write_repository(bundle, tmp_path / "repo", precision="int8", options=Options(tensorrt=True))
    assert not (tmp_path / "repo").exists()


def test_missing_precision_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no graph of precision int8; give --precision with one of: fp32"):
        write_repository(GOLDEN, tmp_path / "repo", precision="int8")
    assert not (tmp_path / "repo").exists()


def test_python_backend_has_its_program_in_every_version(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write_repository(GOLDEN, repo, options=Options(backend="python"))
    write_repository(another_bundle(tmp_path / "second"), repo)
    assert (repo / "golden/1/model.py").read_bytes() == (repo / "golden/2/model.py").read_bytes()
    written = write_repository(another_bundle(tmp_path / "third"), repo, options=Options(), rewrite_config=True)
    assert written.version == 3
    assert not (repo / "golden/3/model.py").exists()
    assert parsed((repo / "golden/config.pbtxt").read_text()).backend == "onnxruntime"


def test_new_program_adds_a_version_of_the_encoded_model(tmp_path: Path) -> None:
    write_repository(GOLDEN, tmp_path)
    (tmp_path / "golden_encoded/1/model.py").write_text("# of an older Maskloop\n")
    write_repository(GOLDEN, tmp_path)
    assert files(tmp_path) == ONE | ENCODED | {"golden_encoded/2/model.py"}
    assert (tmp_path / "golden_encoded/1/model.py").read_text() == "# of an older Maskloop\n"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("places", "places"),
        ("vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_dinov2_lvd142m"),
        ("Straße bei Nacht/№ 3", "Stra_e_bei_Nacht_3"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 100),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", "...", "图"])
def test_name_without_usable_characters_is_rejected(name: str) -> None:
    with pytest.raises(ValueError, match="give another --name"):
        safe_name(name)


def test_command_reports_model_and_version(tmp_path: Path) -> None:
    ran = run("triton", GOLDEN, "--out", tmp_path / "repo", "--name", "a b", "--kind", "gpu", "--tensorrt")
    assert ran.returncode == 0, ran.stderr
    (event,) = lines(ran)
    assert (event["event"], event["model"], event["encoded_model"]) == ("done", "a_b", "a_b_encoded")
    assert (event["version"], event["is_new"]) == (1, True)
    assert "version 1 of a_b" in ran.stderr
    config = parsed((tmp_path / "repo/a_b/config.pbtxt").read_text())
    assert config.HasField("optimization")
    assert json.loads(parameters(config)["classes"])[0]["name"] == "sky"


def test_command_reports_invalid_options_without_a_traceback(tmp_path: Path) -> None:
    ran = run("triton", GOLDEN, "--out", tmp_path / "repo", "--kind", "cpu", "--tensorrt")
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "--tensorrt needs a GPU" in lines(ran)[0]["message"]
    assert not (tmp_path / "repo").exists()


def test_command_has_help() -> None:
    ran = run("triton", "--help")
    assert ran.returncode == 0
    assert "usage: python -m exporter triton" in ran.stdout
