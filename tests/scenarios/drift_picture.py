"""Picture of some held-out photographs with their labels and the masks before and after."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.comparison import Row, draw_comparison
from tests.scenarios.drift_frames import DriftFrames
from tests.scenarios.frames import image_file, mask_file
from tests.scenarios.session import Session

ROWS = 5


def draw(file: Path, session: Session, data: Path, frames: DriftFrames, found: dict[str, Any]) -> None:
    """Draw frames evenly from all held-out ones."""
    versions = (found["release"]["base_version"], found["release"]["version"])
    chosen = [frames.held_out[(2 * k + 1) * len(frames.held_out) // (2 * ROWS)] for k in range(ROWS)]
    rows = [
        Row(
            np.asarray(Image.open(image_file(data, frame))),
            np.asarray(Image.open(mask_file(data, frame))),
            *(session.segment(image_file(data, frame), version) for version in versions),
        )
        for frame in chosen
    ]
    table = tomllib.loads((data / "classes.toml").read_text(encoding="utf-8"))
    draw_comparison(file, rows, {entry["name"]: (*entry["color"],) for entry in table["classes"]})
