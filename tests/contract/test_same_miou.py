"""The mIoU that the trainer reports equals the mIoU of the masks that the service returns."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from exporter.manifest import Manifest
from service.settings import PACKAGE, Settings
from tests.contract.conftest import Exported
from tests.service.conftest import serve
from trainer.checkpoint import load
from trainer.data.dataset import SegmentationDataset
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.metrics import Scores, confusion, scores

TOLERANCE_MIOU = 0.001
TOLERANCE_INT8 = 0.005
"""CPUs differ in how they round the sums of int8 products."""
CAMVID = Path(__file__).parents[2].parent / "shared" / "camvid"
STARTER = PACKAGE / "starter"


def served_scores(client: TestClient, dataset: SegmentationDataset, split: str) -> Scores:
    """POST every image file of a split and score the returned masks."""
    classes, ignore_index = len(dataset.taxonomy), dataset.taxonomy.ignore_index
    confusion_KK = torch.zeros((classes, classes), dtype=torch.int64)
    samples = dataset.split(split)
    for sample in samples:
        response = client.post("/v1/segment", content=sample.image.read_bytes()).raise_for_status()
        with Image.open(io.BytesIO(response.content)) as mask:
            assert mask.mode == "P"
            mask_HW = torch.from_numpy(np.array(mask))
        _, truth_HW = dataset.read_pair(sample)
        confusion_KK += confusion(mask_HW, torch.from_numpy(truth_HW), classes, ignore_index)
    return scores(confusion_KK, dataset.taxonomy.names, len(samples))


def test_trained_model_serves_the_miou_of_its_evaluation(
    trained_resnet: Exported, two_classes: Path, tmp_path: Path
) -> None:
    evaluated_miou = load(trained_resnet.checkpoint).metrics["miou"]
    with serve(Settings(data_dir=tmp_path / "data", model=str(trained_resnet.bundle))) as client:
        served = served_scores(client, open_dataset(two_classes), "val")
    assert served.miou == pytest.approx(evaluated_miou, abs=TOLERANCE_MIOU)
    # A model that predicts one class everywhere would agree with any implementation.
    assert 0.5 < served.miou < 1


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid as a data set folder in ../shared/camvid")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", TOLERANCE_MIOU), ("int8", TOLERANCE_INT8)])
def test_starter_model_serves_the_miou_of_its_model_card(precision: str, tolerance: float, tmp_path: Path) -> None:
    manifest = Manifest.from_json((STARTER / "manifest.json").read_text())
    (graph,) = [artifact for artifact in manifest.artifacts if artifact.precision == precision]
    assert graph.validation is not None
    with serve(Settings.model_validate({"data_dir": tmp_path / "data", "precision": precision})) as client:
        assert f'precision="{precision}"' in client.get("/metrics").text
        served = served_scores(client, open_dataset(CAMVID), "val")
    assert served.miou == pytest.approx(graph.validation.miou, abs=tolerance)
    assert graph.validation.miou == pytest.approx(manifest.metrics["miou"], abs=TOLERANCE_INT8)
