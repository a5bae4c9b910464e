"""The texture data set: layout, reproducibility, separation of training and validation pixels."""

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


def test_folder_has_the_data_set_layout(tmp_path: Path) -> None:
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
def test_minimum_number_of_mosaics_contains_every_class_in_large_regions(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "textures"
    make_textures(root, labelled=3, unlabelled=0, val=3, size=48, seed=seed)
    for split in ("labelled", "val"):
        masks = [pixels(root / "masks" / f"{name}.png") for name in names(root, split)]
        assert set(np.unique(masks)) == set(range(len(TEXTURES)))
        for one in masks:
            shares = np.bincount(one.ravel())[np.unique(one)] / one.size
            assert 3 <= len(shares) <= 6
            assert shares.min() >= textures.SMALLEST_REGION


def test_output_depends_only_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (small(tmp_path / str(n), seed=seed) for n, seed in enumerate((0, 0, 1)))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    image = Path("images") / "labelled_0000.png"
    assert (first / image).read_bytes() != (other / image).read_bytes()


def test_training_and_validation_use_different_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With photographs that are black on the left and white on the right, training is black and validation is white."""
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


def test_non_empty_folder_is_rejected_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DemoError, match="choose another folder"):
        small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_mosaics_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="at least 3"):
        make_textures(tmp_path / "textures", labelled=2)


def test_missing_scikit_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(DemoError, match=r"scikit-image is not installed.*uv pip install"):
        make_textures(tmp_path / "textures")
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "textures"
    arguments = [str(out), "--labelled", "3", "--unlabelled", "1", "--val", "3", "--size", "32"]
    assert textures.main(arguments) == 0
    assert len(list((out / "images").iterdir())) == 7
    assert textures.main(arguments) == 1
    assert "is not empty" in capsys.readouterr().err
