"""Every kind of encoder, from its checkpoint to the service's engine, gives PyTorch's masks for images of odd sizes.

Small networks; `make sizes` has full ones. EfficientNet is in test_starter.py and in tests/exporter/test_graph.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.export import eager, export
from exporter.runtime import OnnxPredictor
from exporter.verify import verify
from service.models.bundle import read_bundle
from service.models.loading import LoadedModel, load_model
from service.settings import Settings
from tests.benchmarks.sizes import compare, graph_for, images_of
from tests.exporter.conftest import make_checkpoint, predictor_of

HEAD = {"features": 8, "projections": [8, 8, 8, 8]}
SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "DINOv2": (
        {
            "encoder": "vit_small_patch14_dinov2",
            "encoder_options": {"depth": 2, "embed_dim": 16, "num_heads": 1, "img_size": 70},
            "weights": "none",
        },
        0,
    ),
    "ResNet": ({"encoder": "test_resnet", "weights": "none"}, 480),
    "ConvNeXt": ({"encoder": "test_convnext", "weights": "none"}, 0),
}
BATCHES = [(1, 1, 1), (5, 1, 1), (5, 37, 1000), (1, 517, 389), (1, 2048, 2048)]


@pytest.fixture(scope="module", params=SMALL)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and the bundle of it."""
    folder = tmp_path_factory.mktemp(request.param)
    model, long_side = SMALL[request.param]
    file = make_checkpoint(folder / "model.safetensors", model | HEAD, long_side=long_side)
    export(file, folder / "bundle", with_checkpoint=False)
    verify(folder / "bundle")
    return file, folder / "bundle"


@pytest.fixture(scope="module")
def served(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"), max_native_pixels=2048 * 2048, max_inference_bytes=2**40
    )
    return load_model(read_bundle(made[1]), settings)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "height", "width"), BATCHES)
def test_masks_are_pytorchs(made: tuple[Path, Path], served: LoadedModel, count: int, height: int, width: int) -> None:
    file, bundle = made
    batch_NHW3 = images_of(count, height, width)
    expected = eager(predictor_of(file))(batch_NHW3)
    graph = graph_for(verify(bundle).manifest, height, width, count, heads=1)
    seen = compare(expected, OnnxPredictor(bundle / graph)(batch_NHW3))
    assert seen.is_equal, seen
    answers = [served.engine.run(image_HW3) for image_HW3 in batch_NHW3]
    found = np.stack([each.mask_HW for each in answers]), np.stack([each.confidence_HW for each in answers])
    assert (seen := compare(expected, found)).is_equal, seen
