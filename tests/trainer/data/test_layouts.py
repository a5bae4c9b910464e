"""The public layouts: each gives the same samples, by the official lists and by its own splits."""

import builtins
import io
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.layouts import CLASSES, HEIGHT, IDS, LAYOUTS, OFFICIAL, SPLITS, STORED, VOID, WIDTH, write_layout
from trainer.data.classes_file import PUBLIC, read_classes
from trainer.data.dataset import EVERYTHING, DatasetError, SegmentationDataset
from trainer.data.decode import ImageError
from trainer.data.readers.file_layouts import THING_IDS
from trainer.data.readers.layouts import open_dataset, open_unlabelled
from trainer.taxonomy import TaxonomyError, distinct_colors

FIRST_MASKS = {
    "voc": "SegmentationClass/2007_000000.png",
    "cityscapes": "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
    "ade20k": "annotations/training/ADE_train_00000001.png",
    "coco": "masks/000000000009.png",
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(layout: str, tmp_path: Path) -> Path:
    return write_layout(tmp_path / layout, layout)


def first_pair(dataset: SegmentationDataset, split: str) -> tuple[Any, Any]:
    return dataset.read_pair(dataset.split(split)[0])


def test_layout_is_detected_from_its_files(layout: str, root: Path) -> None:
    found, named = open_dataset(root), open_dataset(root, layout)
    assert type(found) is type(named)
    assert len(found.taxonomy) == CLASSES[layout]


def test_all_layouts_give_the_same_samples(layout: str, root: Path) -> None:
    dataset, names = open_dataset(root), SPLITS[layout]
    assert [len(dataset.split(name)) for name in names] == [4, 4, 2]
    for name in (names.labelled, names.val):
        image_HWC, mask_HW = first_pair(dataset, name)
        assert image_HWC.shape == (HEIGHT, WIDTH, 3)
        void = VOID[layout] is not None
        assert set(np.unique(mask_HW)) == {*IDS[layout]} | ({255} if void else set())
        assert (mask_HW[0] == 255).all() == void
        # The right side is bright and has the second class.
        assert (image_HWC.mean(axis=2)[1:] > 100).mean() == pytest.approx(
            (mask_HW[1:] == IDS[layout][1]).mean(), abs=0.05
        )
    assert all(dataset.has_mask(sample) for sample in dataset.split(names.labelled))


def test_size_and_encoded_bytes_of_a_sample(layout: str, root: Path) -> None:
    dataset = open_dataset(root)
    sample = dataset.split(SPLITS[layout].labelled)[0]
    assert dataset.size(sample) == (HEIGHT, WIDTH)
    encoded = dataset.read_bytes(sample, mask=False)
    assert dataset.read_bytes(sample, mask=False, limit=16) == encoded[:16]
    assert Image.open(io.BytesIO(dataset.read_bytes(sample, mask=True))).size == (WIDTH, HEIGHT)


def test_dataset_can_be_pickled(layout: str, root: Path) -> None:
    """DataLoader workers need this where processes are spawned, not forked."""
    again = pickle.loads(pickle.dumps(open_dataset(root)))  # noqa: S301 (our own)
    assert first_pair(again, SPLITS[layout].val)[0].shape == (HEIGHT, WIDTH, 3)


def test_split_everything_contains_all_images(layout: str, root: Path) -> None:
    assert len(open_unlabelled(root).split(EVERYTHING)) == 10


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_split_files_may_be_in_another_folder(layout: str, root: Path, tmp_path: Path) -> None:
    (root / "splits").rename(tmp_path / "official")
    dataset = open_dataset(root, splits=tmp_path / "official")
    assert len(dataset.split(SPLITS[layout].labelled)) == 4


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_both_spellings_of_labelled_find_the_split_file(layout: str, root: Path) -> None:
    dataset = open_dataset(root)
    setting = OFFICIAL[layout][0]
    assert dataset.split(f"{setting}/labelled") == dataset.split(f"{setting}/labeled")


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_line_without_mask_uses_the_layout_and_none_means_unlabelled(layout: str, root: Path) -> None:
    images = [line.split()[0] for line in (root / "splits/val.txt").read_text().splitlines()]
    (root / "splits/alone.txt").write_text("\n".join(images))
    (root / "splits/bare.txt").write_text("".join(f"{image} None\n" for image in images))
    dataset = open_dataset(root)
    assert all(dataset.has_mask(sample) for sample in dataset.split("alone"))
    assert not any(dataset.has_mask(sample) for sample in dataset.split("bare"))
    with pytest.raises(ImageError, match="has no mask"):
        first_pair(dataset, "bare")


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_unknown_value_is_reported(layout: str, root: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 222).save(root / FIRST_MASKS[layout])
    with pytest.raises(
        ImageError, match=rf"{Path(FIRST_MASKS[layout]).name}: contains 222 \({WIDTH * HEIGHT} pixels\)"
    ):
        first_pair(open_dataset(root), SPLITS[layout].labelled)


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_layout_defines_train_and_val_without_split_files(layout: str, root: Path) -> None:
    for path in sorted((root / "splits").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    dataset = open_dataset(root)
    assert {"train", "val"} <= set(dataset.splits())
    assert len(dataset.split("val")) == 2
    assert len(dataset.split("train")) == (4 if layout == "voc" else 8)
    assert first_pair(dataset, "val")[1].shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("layout", [*OFFICIAL], indirect=True)
def test_classes_toml_overrides_the_public_classes(layout: str, root: Path) -> None:
    void = VOID[layout]
    (root / "classes.toml").write_text(
        f"ignore_values = {[] if void is None else [void]}\n"
        f'[[classes]]\nname = "all"\ncolor = [1, 2, 3]\nvalues = {list(STORED[layout])}\n'
    )
    dataset = open_dataset(root, layout)
    assert dataset.taxonomy.names == ("all",)
    assert set(np.unique(first_pair(dataset, SPLITS[layout].labelled)[1])) <= {0, 255}


def test_voc_finds_masks_in_segmentation_class_aug(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "voc", "voc")
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    assert first_pair(open_dataset(root), "92/labeled")[1].shape == (HEIGHT, WIDTH)


def test_cityscapes_prefers_train_ids_to_label_ids(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "cityscapes", "cityscapes")
    mask = root / FIRST_MASKS["cityscapes"]
    Image.new("L", (WIDTH, HEIGHT), 18).save(mask.with_name(mask.name.replace("labelIds", "labelTrainIds")))
    assert (first_pair(open_dataset(root), "1_16/labeled")[1] == 18).all()


def test_cityscapes_images_may_lie_outside_folders_of_cities(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "cityscapes", "cityscapes")
    shutil.rmtree(root / "splits")
    expected = first_pair(open_dataset(root), "train")[1]
    for path in [*root.glob("leftImg8bit/*/*/*.png"), *root.glob("gtFine/*/*/*.png")]:
        path.rename(path.parents[1] / path.name)
    dataset = open_dataset(root)
    assert (len(dataset.split("train")), len(dataset.split("val"))) == (8, 2)
    assert np.array_equal(first_pair(dataset, "train")[1], expected)


def test_cityscapes_label_ids_map_to_the_19_classes() -> None:
    taxonomy, encoding = read_classes(PUBLIC / "cityscapes.toml")
    ids = encoding.to_ids(
        np.array([[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]], dtype=np.uint8)
    )
    assert ids.tolist() == [list(range(19))]
    others = encoding.to_ids(np.array([[0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255]], dtype=np.uint8))
    assert (others == 255).all()
    assert [taxonomy.names[index] for index in (0, 10, 13, 18)] == ["road", "sky", "car", "bicycle"]


def test_ade20k_detects_reduced_masks(tmp_path: Path) -> None:
    """The masks of UniMatch's authors store k for class k and 255 for "other", under the names of the raw ones."""
    root = write_layout(tmp_path / "ade20k", "ade20k")
    raw = first_pair(open_dataset(root), "1_64/labeled")[1]
    for path in (root / "annotations").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(path)  # 0 becomes 255
    assert (first_pair(open_dataset(root), "1_64/labeled")[1] == raw).all()


def test_coco_reads_pixel_maps_if_masks_are_missing(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "coco", "coco")
    (root / FIRST_MASKS["coco"]).unlink()
    maps = root / "stuffthingmaps" / "train2017"
    maps.mkdir(parents=True)
    stored_HW = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    stored_HW[1, :4] = (0, 89, 91, 181)  # person, toothbrush, first and last stuff
    Image.fromarray(stored_HW).save(maps / "000000000009.png")
    mask_HW = first_pair(open_dataset(root), "1_512/labeled")[1]
    assert mask_HW[1, :5].tolist() == [1, 80, 0, 0, 255]
    assert len(THING_IDS) == 80


def test_plain_folder_gives_visible_images_at_any_depth(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c/d.PNG", "b/.hidden.png", ".trash/e.jpg", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(tmp_path / name, "PNG")
    dataset = open_unlabelled(tmp_path)
    samples = dataset.split(EVERYTHING)
    assert [sample.name for sample in samples] == ["a.jpg", "b/c/d.PNG"]
    assert not dataset.has_mask(samples[0])
    assert dataset.read(samples[1]).shape == (4, 5, 3)


def test_split_files_select_images_of_a_plain_folder(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (5, 4)).save(tmp_path / name)
    (tmp_path / "splits/unlabelled.txt").write_text("a\nb.png\n")
    assert len(open_unlabelled(tmp_path).split("unlabelled")) == 2


def test_plain_folder_without_split_files_recommends_everything(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match=r'has no split \'unlabelled\'; set data\.unlabelled = "\*"'):
        open_unlabelled(tmp_path).split("unlabelled")


def test_unknown_layout_error_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"found none of .*JPEGImages \(voc\).*classes\.toml \(folder\)"):
        open_dataset(tmp_path)
    write_layout(tmp_path / "VOC2012", "voc")
    with pytest.raises(DatasetError, match=r"use .*VOC2012, which is a data set"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="must be auto or one of"):
        open_dataset(tmp_path, "pascal")


def test_empty_folder_of_unlabelled_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="contains no images"):
        open_unlabelled(tmp_path).split(EVERYTHING)


def test_split_files_select_rows_of_a_hugging_face_dataset(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "hf", "huggingface")
    (root / "splits").mkdir()
    (root / "splits/few.txt").write_text("labelled/3\nval/0\n")
    dataset = open_dataset(root)
    assert [sample.name for sample in dataset.split("few")] == ["labelled/3", "val/0"]
    (root / "splits/few.txt").write_text("labelled/3\nlabelled/4\n")
    with pytest.raises(DatasetError, match="'labelled/4'"):
        dataset.split("few")
    with pytest.raises(
        DatasetError, match="no such split 'train'; existing splits: few, labelled, unlabelled, val; name"
    ):
        dataset.split("train")


def test_hugging_face_rows_without_masks_are_unlabelled(tmp_path: Path) -> None:
    dataset = open_dataset(write_layout(tmp_path / "hf", "huggingface"))
    sample = dataset.split("unlabelled")[0]
    assert not dataset.has_mask(sample)
    with pytest.raises(ImageError, match=r"unlabelled/0: the row has no mask"):
        dataset.read_pair(sample)


def test_hugging_face_classes_can_come_from_id2label(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "hf", "huggingface")
    (root / "classes.toml").unlink()
    (root / "id2label.json").write_text(json.dumps({"0": "dark", "1": "bright"}), encoding="utf-8-sig")
    assert open_dataset(root).taxonomy.names == ("dark", "bright")
    (root / "id2label.json").write_text(json.dumps({"1": "dark", "2": "bright"}))
    with pytest.raises(TaxonomyError, match=r"id2label\.json: must map"):
        open_dataset(root)


def test_missing_datasets_package_error_gives_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "hf", "huggingface")
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DatasetError, match="pip install"):
        open_dataset(root)


def test_public_classes_files_match_their_datasets() -> None:
    counts = {path.stem: len(read_classes(path)[0]) for path in PUBLIC.glob("*.toml")}
    assert counts == {"voc": 21, "cityscapes": 19, "ade20k": 150, "coco": 81}
    voc = read_classes(PUBLIC / "voc.toml")[0]
    assert list(voc.colors) == distinct_colors(21)
    assert (voc.names[15], voc.colors[15]) == ("person", (192, 128, 128))
    ade = read_classes(PUBLIC / "ade20k.toml")[0]
    assert [ade.names[index] for index in (0, 12, 149)] == ["wall", "person", "flag"]
