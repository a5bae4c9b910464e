"""A real bundle of a few kilobytes, built without torch: every pixel gets the class with the nearest colour.

The graph follows the contract of bundles: input `image` uint8 [N, H, W, 3] with dynamic N, H, W; outputs `mask` and
`confidence`. The masks of the probe are computed with numpy, independently of onnxruntime.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255))
NAMES = ("red", "green", "blue", "black", "white")


def nearest(image_HW3: npt.NDArray[np.uint8], colors: tuple[tuple[int, int, int], ...]) -> npt.NDArray[np.uint8]:
    """Return the expected mask: the index of the nearest colour, uint8 [H, W]."""
    distance = ((image_HW3[:, :, None].astype(np.int64) - np.array(colors)) ** 2).sum(axis=-1)
    ids: npt.NDArray[np.uint8] = distance.argmin(axis=-1).astype(np.uint8)
    return ids


def mean_color(image_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Return the expected embedding: the mean colour, divided by its length, float16 [3]."""
    mean = image_HW3.mean(axis=(0, 1))
    vector: npt.NDArray[np.float16] = (mean / np.linalg.norm(mean)).astype(np.float16)
    return vector


def picture(width: int = 40, height: int = 30, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return blocks of the five colours with a little noise, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(COLORS), (-(-height // 10), -(-width // 10))).repeat(10, 0).repeat(10, 1)
    exact = np.array(COLORS)[ids[:height, :width]]
    return np.clip(exact + rng.integers(-30, 31, exact.shape), 0, 255).astype(np.uint8)


def write_bundle(
    folder: Path,
    *,
    version: str = "20260101T000000-aaaaaaaa",
    colors: tuple[tuple[int, int, int], ...] = COLORS,
    work: int = 0,
    max_height: int | None = None,
    embedding: bool = False,
    **manifest: Any,
) -> Path:
    """Write a bundle whose classes are these colours.

    Args:
        folder: Target; created.
        version: Version of the model.
        colors: RGB by class id; another order gives a model with other predictions.
        work: Number of elementwise operations added to the graph, to make it slow.
        max_height: Height in pixels from which on the graph fails; above 24, so that the probe passes.
        embedding: The graph returns the mean colour of the image, with length 1, as its embedding.
        manifest: Fields to replace in the manifest.
    """
    folder.mkdir(parents=True)
    onnx.save(_graph(colors, work, max_height, embedding=embedding), str(folder / "model.onnx"))
    images = [picture(32, 24), picture(40, 17)]
    probe: dict[str, npt.NDArray[Any]] = {f"image_{i}": image for i, image in enumerate(images)}
    probe |= {f"mask_{i}": nearest(image, colors) for i, image in enumerate(images)}
    if embedding:
        probe |= {f"embedding_{i}": mean_color(image) for i, image in enumerate(images)}
    np.savez(folder / "probe.npz", **probe)  # type: ignore[arg-type]  # the stub takes the names for its own options
    (folder / "MODEL_CARD.md").write_text("# A tiny model for tests\n")
    if embedding:
        manifest = {"embedding": {"output": "embedding", "dimensions": 3}} | manifest
    write_manifest(folder, version=version, colors=colors, **manifest)
    return folder


def write_manifest(
    folder: Path, *, version: str, colors: tuple[tuple[int, int, int], ...] = COLORS, **manifest: Any
) -> None:
    """Write the manifest for the files in a folder."""
    body: dict[str, Any] = {
        "format_version": 1,
        "name": "tiny",
        "version": version,
        "created_at": "2026-01-01T00:00:00Z",
        "classes": [
            {"id": i, "name": NAMES[COLORS.index(color)], "color": list(color)} for i, color in enumerate(colors)
        ],
        "ignore_index": 255,
        "inference": {"rule": "whole", "long_side": 0, "multiple": 1},
        "metrics": {"miou": 0.5},
        "provenance": {"parent": None, "recipe": {}, "data_fingerprint": "none", "code_version": "test"},
        "probe": {
            "file": "probe.npz",
            "sha256": sha256(folder / "probe.npz"),
            "tolerance": {"mask_agreement": 0.999},
        },
        "artifacts": [
            {"file": "model.onnx", "precision": "fp32", "sha256": sha256(folder / "model.onnx"), "opset": 20}
            | ({"min_embedding_cosine": 0.9999} if "embedding" in manifest else {})
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(body | manifest))


def add_tile(
    folder: Path,
    *,
    window: tuple[int, int],
    stride: float = 0.5,
    colors: tuple[tuple[int, int, int], ...] = COLORS,
    factor: float = 1.0,
    embedding: bool = False,
) -> None:
    """Add a graph for sliding windows to a bundle.

    Args:
        folder: The bundle.
        window: Height and width in pixels.
        stride: Step of the window as a fraction of its side.
        colors: RGB by class id.
        factor: Factor on the probabilities; a value other than 1 makes them invalid.
        embedding: The graph returns the mean colour of the window.
    """
    onnx.save(_tile_graph(colors, window, factor, embedding=embedding), str(folder / "model.tile.onnx"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tile"] = {
        "file": "model.tile.onnx",
        "sha256": sha256(folder / "model.tile.onnx"),
        "bytes": (folder / "model.tile.onnx").stat().st_size,
        "opset": 20,
        "window": list(window),
        "stride": stride,
        "probability_max_abs": 0.0,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def zipped(folder: Path, *, inside: str = "") -> bytes:
    """Return the bundle as a zip, with its files in the folder `inside`."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return sink.getvalue()


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _graph(
    colors: tuple[tuple[int, int, int], ...], work: int, max_height: int | None, *, embedding: bool
) -> onnx.ModelProto:
    shape = ["N", "H", "W"]
    nodes, constants = _logits(colors, work)
    if max_height is not None:
        # The lookup of the height fails above it.
        nodes[-1].output[0] = "logits_unlimited"
        constants["zeros"] = np.zeros(max_height, np.float32)
        nodes += [
            helper.make_node("Shape", ["image"], ["height"], start=1, end=2),
            helper.make_node("Gather", ["zeros", "height"], ["zero"]),
            helper.make_node("Add", ["logits_unlimited", "zero"], ["logits"]),
        ]
    constants |= {"axis": np.array([-1], dtype=np.int64), "full": np.float32(255)}
    nodes += [
        helper.make_node("ArgMax", ["logits"], ["ids"], axis=-1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["mask"], to=TensorProto.UINT8),
        helper.make_node("Softmax", ["logits"], ["probability"], axis=-1),
        helper.make_node("ReduceMax", ["probability", "axis"], ["best"], keepdims=0),
        helper.make_node("Mul", ["best", "full"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["confidence"], to=TensorProto.UINT8),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("mask", "confidence")]
    if embedding:
        outputs.append(_add_embedding(nodes, constants))
    return _model(nodes, constants, [*shape, 3], outputs)


def _add_embedding(
    nodes: list[onnx.NodeProto], constants: dict[str, npt.NDArray[Any] | np.generic]
) -> onnx.ValueInfoProto:
    constants |= {"sides": np.array([1, 2], dtype=np.int64), "channel": np.array([1], dtype=np.int64)}
    nodes += [
        helper.make_node("ReduceMean", ["x0", "sides"], ["mean"], keepdims=0),
        helper.make_node("ReduceL2", ["mean", "channel"], ["length"], keepdims=1),
        helper.make_node("Div", ["mean", "length"], ["unit"]),
        helper.make_node("Cast", ["unit"], ["embedding"], to=TensorProto.FLOAT16),
    ]
    return helper.make_tensor_value_info("embedding", TensorProto.FLOAT16, ["N", 3])


def _tile_graph(
    colors: tuple[tuple[int, int, int], ...], window: tuple[int, int], factor: float, *, embedding: bool
) -> onnx.ModelProto:
    nodes, constants = _logits(colors, work=0)
    constants["factor"] = np.float32(factor)
    nodes += [
        helper.make_node("Softmax", ["logits"], ["shares"], axis=-1),
        helper.make_node("Mul", ["shares", "factor"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["probability"], perm=[0, 3, 1, 2]),
    ]
    output = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", len(colors), *window])
    outputs = [output, *([_add_embedding(nodes, constants)] if embedding else [])]
    return _model(nodes, constants, ["N", *window, 3], outputs)


def _logits(
    colors: tuple[tuple[int, int, int], ...], work: int
) -> tuple[list[onnx.NodeProto], dict[str, npt.NDArray[Any] | np.generic]]:
    # The colour c nearest to a pixel x has the largest 2*c.x - c.c; scaled so that the softmax is not only 0 and 1.
    table = np.array(colors, dtype=np.float32)
    scale = np.float32(1 / 5000)
    constants: dict[str, npt.NDArray[Any] | np.generic] = {
        "weight": (2 * table.T * scale).astype(np.float32),
        "bias": -(table**2).sum(axis=1) * scale,
        "one": np.float32(1),
    }
    nodes = [helper.make_node("Cast", ["image"], ["x0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Pow", [f"x{i}", "one"], [f"x{i + 1}"]) for i in range(work)]
    nodes += [
        helper.make_node("MatMul", [f"x{work}", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    return nodes, constants


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, npt.NDArray[Any] | np.generic],
    shape: list[Any],
    outputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
