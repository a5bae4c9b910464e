"""The demonstration's parts and its interruption; `make demo` runs all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import __main__ as cli
from demo.client import RequestCounts
from demo.comparison import CELL, Row, draw_comparison
from demo.dataset import Dataset, Miou
from demo.loop import RECIPE, Result, print_result
from demo.terminal import Terminal
from tests.service.conftest import eventually

CLASSES = '[[classes]]\nname = "dark"\ncolor = [40, 40, 90]\n[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\n'


def make_result(*, before: float = 0.5, after: float = 0.6, failures: list[str] | None = None) -> Result:
    counts = RequestCounts(answered=12, failures=failures or [], by_version={"one": 7, "two": 5})
    over = "2 of 2 classes"
    return Result(before=Miou(before, over), after=Miou(after, over), counts=counts, pictures=[Path("comparison.png")])


@pytest.mark.parametrize(
    ("result", "code", "printed"),
    [
        (make_result(), 0, "0.6000 over 2 of 2 classes   (+0.1000)"),
        (make_result(after=0.5), 1, "did not increase"),
        (make_result(failures=["ConnectError"]), 1, "a request failed: ConnectError"),
    ],
)
def test_exit_code_is_0_only_if_miou_increased_and_no_request_failed(
    result: Result, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    with terminal.phase("wait") as report:
        report(1, 2, "half")
    assert print_result(result, 0.5, 12.0, terminal) == code
    text = capsys.readouterr().out
    assert printed in text
    assert "seconds: wait" in text
    assert f"12 answered, {len(result.counts.failures)} failed" in text
    assert "comparison.png" in text


def test_miou_ignores_unlabelled_pixels(tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text(CLASSES)
    (tmp_path / "splits").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("a\n")
    label = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    Image.fromarray(label).save(tmp_path / "masks" / "a.png")
    dataset = Dataset(tmp_path)
    (image,) = dataset.images("val")
    assert image == tmp_path / "images" / "a.png"
    assert dataset.miou([image], [label]) == (1.0, "2 of 2 classes")
    predicted = np.array([[0, 1, 1, 0]], dtype=np.uint8)
    assert dataset.miou([image], [predicted]).value == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_miou_counts_a_class_that_is_only_predicted_as_0(tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text(CLASSES)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[0, 0, 0, 0]], dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    predicted = np.array([[0, 0, 0, 1]], dtype=np.uint8)
    assert Dataset(tmp_path).miou([tmp_path / "images" / "a.png"], [predicted]) == (3 / 8, "2 of 2 classes")


def test_comparison_has_four_columns_and_a_legend(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    zeros, ones = np.zeros((8, 8), dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)
    rows = [Row(image, zeros, ones, zeros)] * 2
    draw_comparison(tmp_path / "comparison.png", rows, {"dark": (10, 0, 0), "bright": (0, 250, 0)})
    picture = np.asarray(Image.open(tmp_path / "comparison.png").convert("RGB"))
    assert picture.shape[1] > 4 * CELL
    assert picture.shape[0] > 2 * CELL
    for color, cells in (((10, 0, 0), 4), ((0, 250, 0), 2), ((200, 200, 200), 2)):
        # The legend adds a square of the same colour, smaller than a cell.
        assert (picture == color).all(axis=-1).sum() // CELL**2 == cells


def test_recipe_is_valid_for_the_trainer() -> None:
    pytest.importorskip("torch", reason="torch (extra: trainer) is not installed")
    from trainer.models.segmenter import build_segmenter
    from trainer.recipe_file import load_recipe

    recipe = load_recipe(RECIPE, ["model.weights=none"])
    multiple = build_segmenter(recipe.model, classes=2).size_multiple
    assert [side % multiple for side in recipe.data.crop] == [0, 0]


@pytest.mark.slow
def test_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image (extra: demo) is not installed")
    pytest.importorskip("trainer.config", reason="the extra `trainer` is not installed")
    # A shell starts background jobs with SIGINT ignored, and child processes inherit that.
    restore_sigint = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-m", "demo", "--out", str(tmp_path / "out")]
    demo = subprocess.Popen(
        [sys.executable, "-c", restore_sigint, *command],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        eventually((tmp_path / "out" / "first" / "events.jsonl").exists, within_s=120)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
        demo.wait()

    def remaining() -> list[str]:
        commands = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                commands.append(entry.read_text())
            except OSError:
                continue
        return [command for command in commands if str(tmp_path / "out") in command]

    eventually(lambda: remaining() == [])


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "REQUIRED_PACKAGES", ("no_such_package",))
    assert cli.main(["--out", "/nowhere"]) == 1
    error = capsys.readouterr().err
    assert "no_such_package not installed" in error
    assert "uv pip install" in error


def test_help_describes_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "240 unlabelled" in capsys.readouterr().out
