"""For each kind of encoder, exported graph and service return PyTorch's masks for images of unusual sizes.

Small networks; `make sizes` runs full ones and more sizes. EfficientNet is in tests/exporter/test_graph.py.
"""

import numpy as np
import pytest

from exporter.export import eager
from exporter.probe import embedding_cosine
from exporter.runtime import OnnxPredictor
from exporter.verify import verify
from service.models.bundle import read_bundle
from service.models.loading import load_model
from service.settings import Settings
from tests.benchmarks.sizes import compare, graph_for, images_of
from tests.contract.conftest import Exported
from tests.exporter.conftest import predictor_of

BATCHES = [(1, 1, 1), (5, 37, 300), (1, 517, 389)]
"""Number of images, height, width."""


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["dinov2", "trained_resnet", "convnext"])
def test_masks_equal_pytorch(encoder: str, request: pytest.FixtureRequest) -> None:
    exported: Exported = request.getfixturevalue(encoder)
    network = eager(predictor_of(exported.checkpoint))
    manifest = verify(exported.bundle).manifest
    served = load_model(read_bundle(exported.bundle), Settings(max_native_pixels=2**20)).engine
    for count, height, width in BATCHES:
        batch_NHW3 = images_of(count, height, width)
        *expected_maps, expected_ND = network(batch_NHW3)
        expected = expected_maps[0], expected_maps[1]
        graph = OnnxPredictor(exported.bundle / graph_for(manifest, height, width, count, heads=1))
        seen = compare(expected, graph(batch_NHW3)[:2])
        assert seen.is_equal, seen
        results = [served.run(image_HW3) for image_HW3 in batch_NHW3]
        found = np.stack([each.mask_HW for each in results]), np.stack([each.confidence_HW for each in results])
        seen = compare(expected, found)
        assert seen.is_equal, seen
        embeddings = [each.embedding_D for each in results]
        assert (embedding_cosine(list(np.asarray(expected_ND)), embeddings) or 0) > 0.9999
