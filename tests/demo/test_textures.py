"""The demonstration's data set: complete, repeatable, honest about training and validation."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="scikit-image (extra: demo) is not installed")

from demo import DemoError, textures
from demo.textures import TEXTURES, make_textures


def small(out: Path, *, seed: int = 0) -> Path:
    make_textures(out, labelled=6, unlabelled=5, val=4, size=64, seed=seed)
    return out


def names(root: Path, split: str) -> list[str]:
    return (root / "splits" / f"{split}.txt").read_text().split()


def pixels(file: Path) -> npt.NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image)


def test_folder_holds_what_a_data_set_holds(tmp_path: Path) -> None:
    root = small(tmp_path / "textures")
    assert [len(names(root, split)) for split in ("labelled", "unlabelled", "val")] == [6, 5, 4]
    for name in (name for split in ("labelled", "unlabelled", "val") for name in names(root, split)):
        assert pixels(root / "images" / f"{name}.png").shape == (64, 64, 3)
    masked = {path.stem for path in (root / "masks").iterdir()}
    assert masked == {*names(root, "labelled"), *names(root, "val")}
    classes = tomllib.loads((root / "classes.toml").read_text())
    assert [entry["name"] for entry in classes["classes"]] == [texture.name for texture in TEXTURES]
    assert len({tuple(entry["color"]) for entry in classes["classes"]}) == len(TEXTURES)


@pytest.mark.parametrize("seed", range(4))
def test_few_mosaics_show_every_class_in_regions_that_can_be_seen(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "textures"
    make_textures(root, labelled=3, unlabelled=0, val=3, size=48, seed=seed)
    for split in ("labelled", "val"):
        masks = [pixels(root / "masks" / f"{name}.png") for name in names(root, split)]
        assert set(np.unique(masks)) == set(range(len(TEXTURES)))
        for one in masks:
            shares = np.bincount(one.ravel())[np.unique(one)] / one.size
            assert 3 <= len(shares) <= 6
            assert shares.min() >= textures.SMALLEST_REGION


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (small(tmp_path / str(n), seed=seed) for n, seed in enumerate((0, 0, 1)))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    image = Path("images") / "labelled_0000.png"
    assert (first / image).read_bytes() != (other / image).read_bytes()


def test_validation_never_sees_a_training_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs black on the left and white on the right: all training is black, all validation white."""
    data = tmp_path / "skimage" / "data"
    data.mkdir(parents=True)
    for texture in TEXTURES:
        half = np.zeros((300, 400, 3), np.uint8)
        seam = texture.box[0] + 0.6 * (texture.box[2] - texture.box[0])
        half[:, round(400 * seam) :] = 255
        Image.fromarray(half).save(data / texture.file, format="PNG")
    monkeypatch.setattr("importlib.resources.files", {"skimage": data.parent}.__getitem__)
    monkeypatch.setattr(textures, "BRIGHTNESS", (0.0, 0.0))
    root = small(tmp_path / "textures")
    for split, value in (("labelled", 0), ("unlabelled", 0), ("val", 255)):
        for name in names(root, split):
            assert np.all(pixels(root / "images" / f"{name}.png") == value), name


def test_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DemoError, match="name another folder"):
        small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_refuses_too_few_mosaics_for_the_classes(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="at least 3"):
        make_textures(tmp_path / "textures", labelled=2)


def test_says_what_to_install_when_scikit_image_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DemoError, match=r"maskloop\[demo\]"):
        make_textures(tmp_path / "textures")
    assert list(tmp_path.iterdir()) == []
