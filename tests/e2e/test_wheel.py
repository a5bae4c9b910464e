"""The wheel in an environment of its own, which `make wheel` creates: `maskloop up` and a mask, from any folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
WHEELS, MASKLOOP = ROOT / ".venv/wheel", ROOT / ".venv/installed/bin/maskloop"
START_TIMEOUT_S = 120

pytestmark = pytest.mark.skipif(not MASKLOOP.exists(), reason="run `make wheel`")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose modules have the names of ours."""
    for name in ("service", "trainer", "exporter"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is somebody else')\n")
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(MASKLOOP), *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MASKLOOP_", "PYTHON"))}


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """Address of `maskloop up`."""
    command = [str(MASKLOOP), "up", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = []
    try:
        for line in process.stderr:
            seen.append(line)
            if found := re.search(r"ready: open (http://\S+)", line):
                break
        else:
            pytest.fail("".join(seen))
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_wheel_holds_the_programs_and_the_starter_model() -> None:
    (wheel,) = WHEELS.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    starter = {f"service/starter/{path.name}" for path in (ROOT / "service/starter").iterdir()}
    assert starter | {"maskloop.py", "service/runs/recipe.toml", "exporter/manifest.schema.json"} <= names
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trainer").rglob("*.toml")}
    assert recipes <= names
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"maskloop.py", "service", "trainer", "exporter"}
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.timeout(START_TIMEOUT_S + 120)
def test_service_segments_with_the_starter_model(server: str, folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    done = run(folder, "segment", "photo.jpg", "--out", "masks", "--server", server)
    assert (done.returncode, done.stdout) == (0, "masks: 1 written to masks\n"), done.stderr
    with Image.open(folder / "masks/photo.png") as mask:
        assert (mask.mode, mask.size) == ("P", (160, 120))
    assert "street-scenes" in run(folder, "models", "list", "--server", server).stdout


@pytest.mark.parametrize("words", [["train", "recipe.toml"], ["export", "model.safetensors", "--out", "bundle"]])
def test_verbs_of_missing_extras_name_the_remedy(folder: Path, words: list[str]) -> None:
    (folder / "model.safetensors").touch()
    done = run(folder, *words)
    assert done.returncode == 1
    assert "pip install 'maskloop[trainer,exporter]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help(folder: Path) -> None:
    assert re.fullmatch(r"maskloop \d+\.\d+\.\d+\n", run(folder, "--version").stdout)
    assert run(folder, "--help").stdout.startswith("usage: maskloop ")
