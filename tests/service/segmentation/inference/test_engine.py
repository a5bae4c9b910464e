"""The engine on real graphs: any size, any thread; and graphs with other inputs and outputs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.errors import BundleInvalid, Unavailable
from service.segmentation.inference.cancellation import Cancellation, InferenceCancelled
from service.segmentation.inference.engine import Engine
from service.segmentation.inference.memory_budget import MemoryBudget
from service.segmentation.inference.predictor import Plan
from service.segmentation.inference.probe import cosine, run_probe
from tests.service.tiny_bundle import COLORS, mean_color, nearest, picture, write_bundle


@pytest.fixture
def engine(bundle: Path) -> Engine:
    return Engine(bundle / "model.onnx", threads=1)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (64, 48), (3, 100)])
def test_images_of_any_size(engine: Engine, width: int, height: int) -> None:
    image = picture(width, height)
    found = engine.run(image)
    np.testing.assert_array_equal(found.mask_HW, nearest(image, COLORS))
    assert found.confidence_HW.shape == (height, width)
    assert found.confidence_HW.dtype == np.uint8


def test_concurrent_runs_return_the_right_results(engine: Engine) -> None:
    images = [picture(20 + i, 15 + i, seed=i) for i in range(30)]
    with ThreadPoolExecutor(8) as pool:
        for image, found in zip(images, pool.map(engine.run, images), strict=True):
            np.testing.assert_array_equal(found.mask_HW, nearest(image, COLORS))


def test_cancellation_stops_a_graph_while_it_runs(tmp_path: Path) -> None:
    """The graph computes for seconds; it ends within a small part of that."""
    graph = write_bundle(tmp_path / "slow", work=300) / "model.onnx"
    engine, image, cancellation = Engine(graph, threads=1), picture(1000, 800), Cancellation()
    threading.Timer(0.1, cancellation.cancel).start()
    begin = time.thread_time()
    with pytest.raises(InferenceCancelled):
        engine.run(image, 1, cancellation)
    assert time.thread_time() - begin < 1


def test_cancellation_before_the_graph_runs_stops_it() -> None:
    stopped: list[int] = []
    cancellation = Cancellation()
    cancellation.cancel()
    with cancellation.stopping(lambda: stopped.append(1)):
        assert cancellation()
    cancellation.cancel()
    assert stopped == [1]


def test_missing_cuda_is_an_error(bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA in its onnxruntime")
    with pytest.raises(Unavailable, match="The device is cuda"):
        Engine(bundle / "model.onnx", threads=1, device="cuda")


def test_a_file_that_is_no_graph_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleInvalid, match="does not load"):
        Engine(tmp_path / "model.onnx", threads=1)


def test_a_graph_with_other_inputs_is_rejected_with_their_names(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["image"], ["mask"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("image", TensorProto.FLOAT, [1])], [value("mask", TensorProto.FLOAT, [1])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(BundleInvalid, match="input 'image' is tensor\\(float\\)"):
        Engine(tmp_path / "model.onnx", threads=1)


def test_the_probe_returns_the_agreement(engine: Engine, bundle: Path) -> None:
    assert run_probe(engine, bundle / "probe.npz", mask_agreement=0.999) == 1.0


@pytest.mark.parametrize("content", [b"", b"PK\3\4 broken", b"\x93NUMPY"])
def test_a_broken_probe_is_rejected(engine: Engine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "probe.npz").write_bytes(content)
    with pytest.raises(BundleInvalid):
        run_probe(engine, tmp_path / "probe.npz", mask_agreement=0.999)


def test_a_probe_with_pickled_objects_is_rejected(engine: Engine, tmp_path: Path) -> None:
    np.savez(tmp_path / "probe.npz", image_0=np.array([{}]), mask_0=np.zeros((1, 1), np.uint8))
    with pytest.raises(BundleInvalid):
        run_probe(engine, tmp_path / "probe.npz", mask_agreement=0.999)


def test_too_many_wrong_pixels_are_rejected(engine: Engine, tmp_path: Path) -> None:
    image = picture(10, 10)
    mask = nearest(image, COLORS)
    mask[0, 0] = (mask[0, 0] + 1) % 5
    np.savez(tmp_path / "probe.npz", image_0=image, mask_0=mask)
    assert run_probe(engine, tmp_path / "probe.npz", mask_agreement=0.99) == 0.99
    with pytest.raises(BundleInvalid, match="probe failed"):
        run_probe(engine, tmp_path / "probe.npz", mask_agreement=0.999)


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "embedder", embedding=True)


def test_each_image_gets_its_embedding_alone_and_in_a_batch(embedder: Path) -> None:
    engine, images = Engine(embedder / "model.onnx", threads=1, embedding=3), [picture(seed=seed) for seed in range(3)]
    expected = [mean_color(image_HW3) for image_HW3 in images]
    for found in (engine.run_batch(images), [engine.run(image_HW3) for image_HW3 in images]):
        for prediction, expected_D in zip(found, expected, strict=True):
            assert prediction.embedding_D is not None
            assert prediction.embedding_D.dtype == np.float16
            np.testing.assert_allclose(prediction.embedding_D, expected_D, atol=1e-3)


def test_scaled_down_image_keeps_its_embedding(embedder: Path) -> None:
    budget = MemoryBudget(max_bytes=4_000_000, max_native_pixels=10**6, classes=5, long_side=20)
    engine = Engine(embedder / "model.onnx", threads=1, embedding=3, budget=budget)
    found = engine.run(picture(900, 700))
    assert found.scale < 1
    assert found.embedding_D is not None
    np.testing.assert_allclose(found.embedding_D, mean_color(picture(900, 700)), atol=5e-3)


def test_graph_without_embedding_gives_none(engine: Engine) -> None:
    assert engine.run(picture()).embedding_D is None


def test_graph_that_lacks_the_manifests_embedding_is_rejected(bundle: Path, embedder: Path) -> None:
    with pytest.raises(BundleInvalid, match="output 'embedding' is None"):
        Engine(bundle / "model.onnx", threads=1, embedding=3)
    with pytest.raises(BundleInvalid, match=r"requires float16 \[N, 4\]"):
        Engine(embedder / "model.onnx", threads=1, embedding=4)


def test_embedding_that_the_manifest_does_not_declare_is_ignored(embedder: Path) -> None:
    assert Engine(embedder / "model.onnx", threads=1).run(picture()).embedding_D is None


def test_probe_compares_embeddings(embedder: Path, tmp_path: Path) -> None:
    engine = Engine(embedder / "model.onnx", threads=1, embedding=3)
    limits = {"mask_agreement": 0.999, "min_embedding_cosine": 0.9999}
    assert run_probe(engine, embedder / "probe.npz", **limits) == 1.0
    with np.load(embedder / "probe.npz") as stored:
        arrays = dict(stored)
    for other, says in (
        (mean_color(picture())[::-1], "the cosine of the embedding of image_1"),
        (np.zeros(3, np.float16), "is nan"),
        (np.ones(4, np.float16), "of another length"),
        (np.ones(3, np.float32), "embeddings must be float16"),
    ):
        np.savez(tmp_path / "probe.npz", **(arrays | {"embedding_1": other}))
        with pytest.raises(BundleInvalid, match=says):
            run_probe(engine, tmp_path / "probe.npz", **limits)
    del arrays["embedding_1"]
    np.savez(tmp_path / "probe.npz", **arrays)
    with pytest.raises(BundleInvalid, match="has no embedding of image_1"):
        run_probe(engine, tmp_path / "probe.npz", **limits)


def test_cosine_of_zero_vectors() -> None:
    zero, one = np.zeros(2, np.float16), np.array([1, 0], np.float16)
    assert (cosine(zero, zero), cosine(one, one)) == (1, 1)
    assert np.isnan(cosine(zero, one))


def test_the_plan_states_size_memory_and_batch(bundle: Path) -> None:
    unlimited = Engine(bundle / "model.onnx", threads=1, max_batch=4)
    assert unlimited.plan(30, 40) == Plan(size=(30, 40), estimated_bytes=0, max_batch=1)
    budget = MemoryBudget(max_bytes=10_000_000, max_native_pixels=10**6, classes=5, long_side=100)
    limited = Engine(bundle / "model.onnx", threads=1, budget=budget)
    # As on a GPU.
    limited.max_batch = 4
    small, large = limited.plan(60, 80), limited.plan(600, 800)
    assert small == Plan(size=(60, 80), estimated_bytes=budget.estimate(60, 80), max_batch=4)
    assert small.estimated_bytes < large.estimated_bytes <= budget.max_bytes
    assert (100 <= large.size[1] < 800, large.max_batch) == (True, 1)
