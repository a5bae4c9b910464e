"""The folder data set: what it reads, and what it says when something is wrong."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.__main__ import main
from trainer.data.dataset import DatasetError, check_disjoint
from trainer.data.decode import ImageError, read_image, read_mask, to_rgb
from trainer.data.geometry import Window, cut_image, cut_mask, inside
from trainer.data.layouts import open_dataset
from trainer.data.loaders import Crop, LabelledPairs, Shuffled, labelled_loader
from trainer.taxonomy import TaxonomyError


def test_a_split_gives_photographs_and_masks(dataset: Path) -> None:
    data = open_dataset(dataset)
    image_HWC, mask_HW = data.read_pair(data.split("labelled")[0])
    assert image_HWC.shape == (48, 48, 3)
    assert image_HWC.dtype == np.uint8
    assert set(np.unique(mask_HW)) == {0, 1}
    assert data.taxonomy.names == ("dark", "bright")


def test_a_missing_mask_is_named(dataset: Path) -> None:
    (dataset / "masks/labelled1.png").unlink()
    data = open_dataset(dataset)
    with pytest.raises(ImageError, match=r"masks/labelled1\.png: the mask is missing"):
        data.read_pair(data.split("labelled")[1])


def test_a_mask_of_another_size_is_named_with_both_sizes(dataset: Path) -> None:
    Image.new("L", (20, 10)).save(dataset / "masks/labelled0.png")
    data = open_dataset(dataset)
    with pytest.raises(ImageError, match=r"labelled0\.png: the mask is 20x10 pixels, its photograph 48x48"):
        data.read_pair(data.split("labelled")[0])


def test_a_class_id_outside_the_list_is_named(dataset: Path) -> None:
    Image.new("L", (48, 48), 7).save(dataset / "masks/labelled0.png")
    data = open_dataset(dataset)
    with pytest.raises(ImageError, match=r"labelled0\.png: 2304 pixels hold 7, no class id \(0\.\.1\)"):
        data.read_pair(data.split("labelled")[0])


def test_a_colour_mask_is_refused(dataset: Path) -> None:
    Image.new("RGB", (48, 48)).save(dataset / "masks/labelled0.png")
    data = open_dataset(dataset)
    with pytest.raises(ImageError, match="one channel"):
        data.read_pair(data.split("labelled")[0])


def test_masks_of_four_bits_hold_ids_and_not_greys(dataset: Path) -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)  # 2x1 pixels, 4 bits of grey each
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00\x01")), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (dataset / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_mask(dataset / "mask.png", (1, 2), 2, 255).tolist() == [[0, 1]]


def test_an_unreadable_image_is_named(dataset: Path) -> None:
    (dataset / "images/labelled0.png").write_bytes(b"not an image")
    data = open_dataset(dataset)
    with pytest.raises(ImageError, match=r"images/labelled0\.png: cannot be decoded"):
        data.read(data.split("labelled")[0])


def test_a_name_without_an_image_is_named(dataset: Path) -> None:
    (dataset / "splits/labelled.txt").write_text("nobody\n")
    with pytest.raises(DatasetError, match="'nobody'"):
        open_dataset(dataset).split("labelled")


def test_a_name_in_two_splits_is_named(dataset: Path) -> None:
    (dataset / "splits/val.txt").write_text("labelled0\n")
    data = open_dataset(dataset)
    with pytest.raises(DatasetError, match="'labelled0' is in two splits, labelled and val"):
        check_disjoint(("labelled", data.split("labelled")), ("val", data.split("val")))


def test_fewer_images_than_a_batch_is_refused(dataset: Path) -> None:
    data = open_dataset(dataset)
    samples = data.split("labelled")
    pairs = LabelledPairs(data, samples, Crop((16, 16), (0.5, 2.0), 0))
    with pytest.raises(DatasetError, match="4 labelled images are fewer than a batch of 5"):
        labelled_loader(pairs, len(samples), 5, start=0, steps=1, seed=0, workers=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no classes"),
        ('[[classes]]\nname = "a"\ncolor = [1, 2]', "color must be"),
        ("[[classes]]\ncolor = [1, 2, 3]", "has no name"),
        ("[[classes", "classes.toml"),
    ],
)
def test_a_wrong_classes_file_says_what_is_wrong(dataset: Path, text: str, message: str) -> None:
    (dataset / "classes.toml").write_text(text)
    with pytest.raises(TaxonomyError, match=message):
        open_dataset(dataset)


def test_an_exif_turned_photograph_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


def test_sixteen_bit_greys_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 256, 65535]], dtype=np.uint16))
    assert np.asarray(to_rgb(grey))[0, :, 0].tolist() == [0, 1, 255]


def test_transparency_is_laid_on_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (200, 100, 50, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_photograph_and_mask_are_cut_alike_and_padding_is_ignored() -> None:
    mask_HW = np.arange(12, dtype=np.int64).reshape(3, 4)
    image_HWC = np.repeat(mask_HW[..., None].astype(np.uint8), 3, axis=2)
    window, crop = Window(3, 4, 1, 1, flip=True), (4, 4)
    cut_HW = cut_mask(mask_HW, window, crop, 255)
    inside_HW = inside(window, crop)
    assert (cut_image(image_HWC, window, crop)[..., 0][inside_HW] == cut_HW[inside_HW]).all()
    assert (cut_HW[~inside_HW] == 255).all()
    assert cut_HW[0].tolist() == [255, 7, 6, 5]


def test_training_sees_the_scale_of_inference() -> None:
    """A phone's photograph and a small one of the same scene are cut alike where inference brings both to one size."""
    crop = Crop((32, 32), (0.5, 2.0), 7, long_side=64)
    large, small = (crop.window(size, stream=1, draw=3) for size in ((3024, 4032), (48, 64)))
    assert (large.height, large.width) == (small.height, small.width)
    assert 32 <= large.width <= 128
    native = Crop((32, 32), (0.5, 2.0), 7).window((48, 64), stream=1, draw=3)
    assert native == small


def test_camera_suffixes_in_capitals_are_found(dataset: Path) -> None:
    (dataset / "images/labelled0.png").rename(dataset / "images/labelled0.PNG")
    data = open_dataset(dataset)
    assert data.read(data.split("labelled")[0]).shape == (48, 48, 3)


def test_every_image_comes_once_an_epoch_and_a_resumed_order_is_the_same_order() -> None:
    whole = list(Shuffled(6, 2, start=0, steps=6, seed=1, stream=1))
    assert sorted(index for batch in whole[:3] for index, _ in batch) == list(range(6))
    assert sorted(index for batch in whole[3:] for index, _ in batch) == list(range(6))
    assert list(Shuffled(6, 2, start=4, steps=6, seed=1, stream=1)) == whole[4:]


def test_batches_do_not_depend_on_the_number_of_workers(dataset: Path) -> None:
    data = open_dataset(dataset)
    samples = data.split("labelled")
    pairs = LabelledPairs(data, samples, Crop((16, 16), (0.5, 2.0), 0))
    alone, helped = (
        list(labelled_loader(pairs, len(samples), 2, start=0, steps=3, seed=0, workers=workers)) for workers in (0, 1)
    )
    for ours, theirs in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_check_data_finds_every_problem_and_exits_with_1(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(dataset)]) == 0
    (dataset / "images/unlabelled0.png").write_bytes(b"broken")
    Image.new("L", (48, 48), 9).save(dataset / "masks/val0.png")
    assert main(["check-data", str(dataset)]) == 1
    said = capsys.readouterr().out
    assert "unlabelled0.png" in said
    assert "val0.png" in said
