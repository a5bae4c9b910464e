"""Two checkpoints that export within seconds, and their bundles."""

import fcntl
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from exporter import export as export_module
from exporter.export import export
from exporter.graph import save, write_graph
from exporter.probe import probe_images
from trainer import checkpoint
from trainer.models.encoders.weights import load_encoder_weights
from trainer.models.predictor import MaskPredictor
from trainer.models.segmenter import Segmenter, build_segmenter
from trainer.recipe_file import recipe_from_dict
from trainer.taxonomy import Taxonomy

TINY_VIT = {
    "encoder": "vit_tiny_patch16_224",
    "encoder_options": {"depth": 2, "embed_dim": 24, "num_heads": 2, "patch_size": 8, "img_size": 64},
    "weights": "none",
    "features": 8,
    "projections": [8, 8, 8, 8],
}
TINY_CONVNET = {"encoder": "test_efficientnet", "weights": "none", "features": 16, "projections": [16, 16, 16, 16]}
NAMES = ("sky", "road", "tree", "wall", "sea")
COLORS = ((120, 170, 230), (90, 90, 90), (60, 140, 60), (170, 120, 90), (30, 70, 150))
GOLDEN = Path(__file__).parents[1] / "golden" / "bundle_v1"


def make_checkpoint(
    file: Path, model: dict[str, Any], *, value_range: tuple[float, float] = (0.0, 0.0), **inference: Any
) -> Path:
    """Write a checkpoint of a random network that predicts every class about equally often."""
    recipe = recipe_from_dict(
        {
            "method": "supervised",
            "data": {"root": "datasets/places", "range": value_range},
            "model": model,
            "train": {"steps": 1},
            "inference": inference,
        }
    )
    torch.manual_seed(0)
    segmenter = build_segmenter(recipe.model, len(NAMES)).eval()
    load_encoder_weights(segmenter.encoder, recipe.model.encoder, recipe.model.weights)
    spread_classes(segmenter)
    per_class = dict.fromkeys(NAMES, 0.2) | {"sea": None}
    checkpoint.save(
        file,
        segmenter,
        Taxonomy(NAMES, COLORS),
        metrics={"miou": 0.2, "per_class": per_class, "images": 3, "split": "val"},
        recipe=recipe,
        data_fingerprint="0123abcd",
    )
    return file


def spread_classes(segmenter: Segmenter) -> None:
    """Set the last layer so that the classes' logits have equal mean and spread on the first probe image.

    Otherwise a random network predicts one class everywhere, and any two graphs would agree.
    """
    image_HW3 = probe_images(multiple=segmenter.size_multiple, long_side=0)[0]
    last = segmenter.head.classify[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        logits_KHW = segmenter(torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None] / 255)[0]
        spread_K = logits_KHW.std(dim=(1, 2))
        last.weight.mul_(4 / spread_K[:, None, None, None])
        last.bias.sub_(logits_KHW.mean(dim=(1, 2))).mul_(4 / spread_K)


@pytest.fixture(scope="session", autouse=True)
def write_graph_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """Cache the graph of each network for all tests and workers: tracing takes nearly all the time of an export."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traced"
    cache.mkdir(exist_ok=True)

    def write(predictor: MaskPredictor, file: Path, *, multiple: int, metadata: Mapping[str, str]) -> None:
        weights = b"".join(tensor.numpy().tobytes() for tensor in predictor.state_dict().values())
        key = f"{hashlib.sha256(weights).hexdigest()}-{predictor.long_side}-{multiple}"
        kept = cache / f"{key}.onnx"
        with (cache / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                write_graph(predictor, kept, multiple=multiple)
        model = onnx.load(kept)
        onnx.helper.set_model_props(model, dict(metadata))
        save(model, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "write_graph", write)
        yield write


@pytest.fixture(scope="session")
def vit_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-block ViT that processes images at their own size, and declares the values of 12 bits."""
    file = tmp_path_factory.mktemp("vit") / "model.safetensors"
    return make_checkpoint(file, TINY_VIT, value_range=(0.0, 4095.0))


@pytest.fixture(scope="session")
def convnet_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small EfficientNet whose graph resizes the long side to 192 pixels."""
    return make_checkpoint(tmp_path_factory.mktemp("convnet") / "model.safetensors", TINY_CONVNET, long_side=192)


@pytest.fixture(scope="session")
def vit_bundle(vit_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the ViT, with fp32 weights."""
    out = tmp_path_factory.mktemp("bundles") / "vit"
    export(vit_checkpoint, out, name="places", parent="20260101T000000-00000000")
    return out


@pytest.fixture(scope="session")
def convnet_bundle(convnet_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the ConvNet, with weights stored as fp16 and without the checkpoint."""
    out = tmp_path_factory.mktemp("bundles") / "convnet"
    export(convnet_checkpoint, out, weights="fp16", with_checkpoint=False)
    return out


@functools.cache
def predictor_of(file: Path) -> MaskPredictor:
    """The network of a checkpoint, as the trainer evaluates it."""
    loaded = checkpoint.load(file)
    return MaskPredictor(loaded.model, long_side=loaded.recipe["inference"]["long_side"]).eval()
