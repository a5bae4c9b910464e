"""The mIoU that the trainer reports is the mIoU that the service serves."""

import io
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

import service
from demo.textures import make_textures
from exporter.manifest import Manifest
from tests.contract.conftest import Serve, post, program
from trainer.data.dataset import SegmentationDataset
from trainer.data.layouts import open_dataset
from trainer.evaluation.metrics import Scores, confusion, scores

TOLERANCE_MIOU = 0.001
# CPUs round the sums of int8 at other places.
TOLERANCE_INT8 = 0.005
CAMVID = Path(__file__).parents[2].parent / "shared" / "camvid"
STARTER = Path(service.__file__).parent / "starter"


def served_scores(address: str, dataset: SegmentationDataset, split: str) -> Scores:
    """POST every image of a split as it lies on disk, and compare the masks that come back with the truth."""
    classes, ignore_index = len(dataset.taxonomy), dataset.taxonomy.ignore_index
    confusion_KK = torch.zeros((classes, classes), dtype=torch.int64)
    samples = dataset.split(split)
    for sample in samples:
        with Image.open(io.BytesIO(post(address, sample.image.read_bytes()))) as answer:
            assert answer.mode == "P"
            mask_HW = torch.from_numpy(np.array(answer))
        _, truth_HW = dataset.read_pair(sample)
        confusion_KK += confusion(mask_HW, torch.from_numpy(truth_HW), classes, ignore_index)
    return scores(confusion_KK, dataset.taxonomy.names, len(samples))


@pytest.mark.slow
def test_a_model_trained_on_textures_is_served_as_it_was_evaluated(tmp_path: Path, serve: Serve) -> None:
    make_textures(tmp_path / "textures", labelled=6, unlabelled=4, val=8, size=100)
    recipe = Path(__file__).parents[2] / "demo" / "textures.toml"
    settings = {
        "data.root": tmp_path / "textures",
        "method": "supervised",
        "train.steps": 40,
        "train.ema_decay": 0,  # a teacher would still be half the untrained network
        "data.crop": "[64, 64]",
        "model.features": 16,
    }
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    program("trainer", "train", str(recipe), "--out", str(tmp_path / "run"), *overrides)
    checkpoint, bundle = str(tmp_path / "run/model.safetensors"), tmp_path / "bundle"
    evaluated = program("trainer", "evaluate", checkpoint, "--data", str(tmp_path / "textures"), "--json")
    program("exporter", "export", checkpoint, "--out", str(bundle))
    served = served_scores(serve(bundle), open_dataset(tmp_path / "textures"), "val")
    assert served.miou == pytest.approx(evaluated["miou"], abs=TOLERANCE_MIOU)
    assert served.miou > 1 / 8, "better than a guess, else the comparison says little"


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid as a data set folder in ../shared/camvid")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", TOLERANCE_MIOU), ("int8", TOLERANCE_INT8)])
def test_the_starter_model_serves_the_miou_on_its_card(serve: Serve, precision: str, tolerance: float) -> None:
    manifest = Manifest.from_json((STARTER / "manifest.json").read_text())
    (graph,) = [each for each in manifest.artifacts if each.precision == precision]
    assert graph.validation is not None
    address = serve(None, precision=precision)
    with urlopen(f"{address}/metrics", timeout=10) as answer:
        assert f'precision="{precision}"' in answer.read().decode()
    served = served_scores(address, open_dataset(CAMVID), "val")
    assert served.miou == pytest.approx(graph.validation.miou, abs=tolerance)
    assert graph.validation.miou == pytest.approx(manifest.metrics["miou"], abs=TOLERANCE_INT8)
