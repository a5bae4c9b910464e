"""Each benchmark program runs at its smallest size."""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.settings import PACKAGE
from tests.benchmarks import (
    data_pipeline,
    exported,
    graph_memory,
    labelling_order,
    large_image,
    png_level,
    roofline,
    sizes,
    train_step,
)
from tests.benchmarks.implementations import build_implementation
from tests.exporter.conftest import TINY_CONVNET, make_checkpoint, write_graph_once  # noqa: F401 (a fixture)
from trainer.checkpoint import load

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limit torch to one thread, also in the benchmarks' processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arguments(monkeypatch: pytest.MonkeyPatch, *values: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, values)])


def test_labelling_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    names = {"train": [f"train{number}" for number in range(13)], "val": ["val0"]}
    for folder in ("images", "masks", "splits"):
        (tmp_path / folder).mkdir()
    for split, listed in names.items():
        (tmp_path / "splits" / f"{split}.txt").write_text("\n".join(listed))
        for name in listed:
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "images" / f"{name}.jpg")
            Image.fromarray(rng.integers(0, 2, (32, 32), np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    classes = (f'[[classes]]\nname = "{name}"\ncolor = [{name}, 0, 0]\n' for name in range(2))
    (tmp_path / "classes.toml").write_text("".join(classes))
    monkeypatch.setattr(labelling_order, "BUDGETS", (10, 12))
    monkeypatch.setattr(labelling_order, "load_encoder_weights", lambda *_: None)
    arguments(monkeypatch, "--data", tmp_path, "--seeds", 1)
    labelling_order.main()
    table = capsys.readouterr().out
    assert "| labels | chance | covering | herding | uncertain |" in table
    assert "| 13, all |" in table


def test_train_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(train_step, "IMAGES", 2)
    monkeypatch.setattr(train_step, "PAPER_CROP", 28)
    monkeypatch.setattr(data_pipeline, "ROUNDS", 1)
    monkeypatch.setattr(roofline, "MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    in_a_process = train_step.run_round

    def run_round(name: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
        """Start one process only: each imports torch for seconds."""
        if name == "plain":
            return in_a_process(name, root, options)
        return train_step.one_round(build_implementation(name, root, options), options)

    monkeypatch.setattr(train_step, "run_round", run_round)
    smallest = ("--crop=28", "--batch=2", "--steps=1", "--rounds=1", "--plain-workers=0")
    arguments(monkeypatch, "--device=cpu", "--model=tiny", *smallest)
    assert train_step.main() == 0
    out = capsys.readouterr().out
    assert "| images/s |" in out
    assert "of the machine's peak" in out


# The next two tests export the network of tests/exporter, which is traced once for all of them.
@pytest.mark.usefixtures("write_graph_once")
def test_exported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_a_process = exported.run_candidate

    def run_candidate(candidate: str, graph: Path, size: str, threads: int, seconds: float) -> dict[str, Any]:
        """Start one process only: each imports torch for seconds."""
        if candidate == "torch eager":
            return in_a_process(candidate, graph, size, threads, seconds)
        return exported.measure(
            argparse.Namespace(candidate=candidate, graph=graph, size=size, threads=[threads], seconds=seconds)
        )

    monkeypatch.setattr(exported, "TORCH_CANDIDATES", ("torch eager",))  # torch.compile takes a minute
    monkeypatch.setattr(exported, "run_candidate", run_candidate)
    checkpoint = make_checkpoint(tmp_path / "model.safetensors", TINY_CONVNET, long_side=192)
    arguments(monkeypatch, checkpoint, "--size=32x32", "--threads=1", "--rounds=1", "--seconds=0.1")
    assert exported.main() == 0
    assert "| model.onnx |" in capsys.readouterr().out


@pytest.mark.usefixtures("write_graph_once")
def test_sizes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sizes, "ENCODERS", {"tiny": (TINY_CONVNET, 192)})
    arguments(monkeypatch, "--max-pixels=5")
    assert sizes.main() == 0
    assert "| tiny | `model.onnx` | 5 of 1x1 |" in capsys.readouterr().out


def test_an_encoders_name_becomes_a_random_checkpoint(tmp_path: Path) -> None:
    file = exported.random_checkpoint(tmp_path / "model.safetensors", "test_efficientnet", None)
    assert len(load(file).taxonomy) == 21


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
