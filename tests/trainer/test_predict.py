"""predict: masks follow the recipe's inference rule, and input files are never overwritten."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.conftest import make_recipe
from trainer.checkpoint import Checkpoint
from trainer.commands.predict import predict
from trainer.config import Inference
from trainer.data.decode import read_image
from trainer.data.readers.layouts import open_dataset
from trainer.evaluation.inference import most_likely
from trainer.models.segmenter import build_segmenter
from trainer.run_error import RunError


@pytest.fixture
def checkpoint(dataset: Path) -> Checkpoint:
    """A checkpoint whose recipe sets a window; its head is scaled up so that both classes occur."""
    torch.manual_seed(0)
    recipe = make_recipe(dataset)
    segmenter = build_segmenter(recipe.model, 2).eval()
    for parameter in segmenter.head.parameters():
        parameter.data.mul_(2)
    plain = recipe.as_dict()
    plain["inference"] |= {"window": [16, 16], "window_stride": 0.5}
    return Checkpoint(segmenter, open_dataset(dataset).taxonomy, {}, plain, "", "")


def test_masks_use_the_window_of_the_recipe(checkpoint: Checkpoint, dataset: Path, tmp_path: Path) -> None:
    image = dataset / "images/val0.png"
    written = list(predict(checkpoint, [image], tmp_path / "out"))
    assert written == [tmp_path / "out/val0.png"]
    assert read_image(tmp_path / "out/val0.overlay.jpg").shape == (48, 48, 3)
    pixels_NHWC = torch.from_numpy(read_image(image).copy())[None]
    by_window, whole = (
        most_likely(checkpoint.model, pixels_NHWC, rule)[0][0].numpy()
        for rule in (Inference(window=(16, 16), window_stride=0.5), Inference())
    )
    assert np.array_equal(np.asarray(Image.open(written[0])), by_window)
    assert not np.array_equal(by_window, whole)


@pytest.mark.parametrize("link", [False, True])
def test_input_image_is_not_overwritten(checkpoint: Checkpoint, dataset: Path, tmp_path: Path, link: bool) -> None:
    image, out = dataset / "images/val0.png", dataset / "images"
    if link:
        out = tmp_path / "link"
        out.symlink_to(dataset / "images", target_is_directory=True)
    before = image.read_bytes()
    with pytest.raises(RunError, match=r"val0\.png: is one of the images .* another --out"):
        list(predict(checkpoint, [image], out))
    assert image.read_bytes() == before


def test_overlay_does_not_overwrite_an_input_image(checkpoint: Checkpoint, tmp_path: Path) -> None:
    images = [tmp_path / "a.jpg", tmp_path / "a.overlay.jpg"]
    for image in images:
        Image.new("RGB", (32, 32)).save(image)
    with pytest.raises(RunError, match=r"a\.overlay\.jpg: is one of the images"):
        list(predict(checkpoint, images, tmp_path))


@pytest.mark.parametrize("second", ["b/val.png", "a/val.jpg", "b/VAL.png"])
def test_images_with_equal_names_are_rejected_before_writing(
    checkpoint: Checkpoint, tmp_path: Path, second: str
) -> None:
    with pytest.raises(RunError, match=r"would both become .*; rename one, or run twice"):
        list(predict(checkpoint, [tmp_path / "a/val.png", tmp_path / second], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
