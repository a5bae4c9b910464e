"""Each benchmark program runs at its smallest size."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.settings import PACKAGE
from tests.benchmarks import exported, graph_memory, large_image, png_level, sizes, train_step
from tests.exporter.conftest import TINY_CONVNET

pytestmark = pytest.mark.slow


def arguments(monkeypatch: pytest.MonkeyPatch, *values: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, values)])


def test_train_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(train_step, "IMAGES", 2)
    monkeypatch.setattr(train_step, "PAPER_CROP", 28)
    arguments(monkeypatch, "--device=cpu", "--crop=28", "--batch=2", "--steps=1", "--rounds=1", "--plain-workers=0")
    assert train_step.main() == 0
    out = capsys.readouterr().out
    assert "| images/s |" in out
    assert "of the machine's peak" in out


def test_exported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(exported, "TORCH_CANDIDATES", ("torch eager",))  # torch.compile takes a minute
    arguments(monkeypatch, "test_efficientnet", "--size=32x32", "--threads=1", "--rounds=1", "--seconds=0.1")
    assert exported.main() == 0
    assert "| model.onnx |" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory is read from /proc")
def test_graph_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    starter = PACKAGE / "starter" / "model.onnx"
    arguments(monkeypatch, starter, "--megapixels", "0.01", "--threads=1")
    assert graph_memory.main() == 0
    out = capsys.readouterr().out
    assert str(starter) in out
    assert "exit code" not in out


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory is read from /proc")
def test_large_image(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(large_image, "FORMATS", {"PNG": {}})
    monkeypatch.setattr(large_image, "RESPONSE_TYPES", ("image/png",))
    arguments(monkeypatch, "--side=64")
    assert large_image.main() == 0
    assert "| PNG, 0 MB | image/png |" in capfd.readouterr().out


def test_sizes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sizes, "ENCODERS", {"tiny": (TINY_CONVNET, 0)})
    arguments(monkeypatch, "--max-pixels=5")
    assert sizes.main() == 0
    assert "| tiny | `model.onnx` | 5 of 1x1 |" in capsys.readouterr().out


def test_png_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    monkeypatch.setattr(png_level, "SIZES", ((64, 48),))
    arguments(monkeypatch, "--rounds=1", tmp_path / "image.png")
    png_level.main()
    assert "the service's PNG" in capsys.readouterr().out


def test_png_encoders_write_the_same_mask() -> None:
    mask_HW = np.random.default_rng(0).integers(0, 32, (37, 53), dtype=np.uint8)
    for title, encode in png_level.png_encoders(mask_HW).items():
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode()))), mask_HW, err_msg=title)
