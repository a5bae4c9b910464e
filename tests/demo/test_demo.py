"""The demonstration's own parts; the whole of it is `make demo`."""

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
from demo.client import Tally
from demo.dataset import Dataset
from demo.pictures import CELL, Row, draw_sheet
from demo.show import Show
from demo.story import Outcome, conclude
from tests.service.conftest import eventually

CLASSES = '[[classes]]\nname = "dark"\ncolor = [40, 40, 90]\n[[classes]]\nname = "bright"\ncolor = [240, 200, 80]\n'


def outcome(*, before: float = 0.5, after: float = 0.6, failures: list[str] | None = None) -> Outcome:
    tally = Tally(answered=12, failures=failures or [], versions={"one": 7, "two": 5})
    return Outcome(before=before, after=after, tally=tally, pictures=[Path("sheet.png")])


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (outcome(), 0, "0.6000   (+0.1000)"),
        (outcome(after=0.5), 1, "did not get better"),
        (outcome(failures=["ConnectError"]), 1, "a request failed: ConnectError"),
    ],
)
def test_it_succeeds_only_if_the_model_got_better_and_no_request_failed(
    found: Outcome, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show = Show()
    with show.phase("wait") as report:
        report(1, 2, "half")
    assert conclude(found, 0.5, 12.0, show) == code
    text = capsys.readouterr().out
    assert said in text
    assert "seconds: wait" in text
    assert f"12 answered, {len(found.tally.failures)} failed" in text
    assert "sheet.png" in text


def test_miou_of_the_masks_that_came_back(tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_text(CLASSES)
    (tmp_path / "splits").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "splits" / "val.txt").write_text("a\n")
    truth = np.array([[0, 0, 1, 255]], dtype=np.uint8)
    Image.fromarray(truth).save(tmp_path / "masks" / "a.png")
    dataset = Dataset(tmp_path)
    (image,) = dataset.images("val")
    assert image == tmp_path / "images" / "a.png"
    assert dataset.miou([image], [truth]) == 1.0
    found = np.array([[0, 1, 1, 0]], dtype=np.uint8)
    assert dataset.miou([image], [found]) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_the_sheet_shows_four_columns_and_the_classes(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 200, dtype=np.uint8)
    zeros, ones = np.zeros((8, 8), dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)
    draw_sheet(
        tmp_path / "sheet.png", [Row(image, zeros, ones, zeros)] * 2, {"dark": (10, 0, 0), "bright": (0, 250, 0)}
    )
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[1] > 4 * CELL
    assert sheet.shape[0] > 2 * CELL
    for color, cells in (((10, 0, 0), 4), ((0, 250, 0), 2), ((200, 200, 200), 2)):
        # The legend shows each class once more, a little square.
        assert (sheet == color).all(axis=-1).sum() // CELL**2 == cells


@pytest.mark.slow
def test_interrupted_it_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the photographs are not installed here")
    pytest.importorskip("trainer.config", reason="the trainer is not installed here")
    # Whoever runs the tests in the background has had SIGINT ignored, and children inherit that.
    listen = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-m", "demo", "--out", str(tmp_path / "out")]
    demo = subprocess.Popen(
        [sys.executable, "-c", listen, *command], stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        eventually((tmp_path / "out" / "first" / "events.jsonl").exists, within_s=120)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
        demo.wait()

    def left() -> list[str]:
        commands = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                commands.append(entry.read_text())
            except OSError:
                continue
        return [command for command in commands if str(tmp_path / "out") in command]

    eventually(lambda: left() == [])


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "REQUIRED_PACKAGES", ("no_such_package",))
    assert cli.main(["--out", "/nowhere"]) == 1
    assert "no_such_package not installed" in capsys.readouterr().err


def test_help_describes_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "240 unlabelled" in capsys.readouterr().out
