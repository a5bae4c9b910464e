"""`import` runs in the base installation: without torch, and without rich."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.trainer.layouts import save

PROGRAM = """
import sys
for name in ("torch", "torchvision", "timm", "rich", "datasets"):
    sys.modules[name] = None
from trainer.command_line import main
sys.exit(main(sys.argv[1:]))
"""


def test_import_needs_neither_torch_nor_rich(tmp_path: Path) -> None:
    save(tmp_path / "source/images/one.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "source/masks/one.png", np.eye(8, dtype=np.uint8))
    arguments = ["import", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m trainer train " in done.stdout
