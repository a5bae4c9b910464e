"""CamVid's photographs as what they are: frames of three video sequences, which are not independent.

Names are SEQUENCE_NUMBER, such as 0001TP_006690 and 0006R0_f00930; numbers count frames at 30 a second.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

FRAMES_PER_SECOND = 30
DUSK, CAR_PARK, DAY = "0001TP", "0006R0", "0016E5"
"""Streets at dusk (62 frames), a car park (101) and streets by day (305)."""


class Frame(NamedTuple):
    """A photograph of the data set."""

    name: str
    sequence: str
    number: int

    def group(self, seconds: int) -> str:
        """Name of the stretch of video, `seconds` long, in which the frame lies."""
        return f"{self.sequence}-{self.number // (FRAMES_PER_SECOND * seconds):03d}"


def read_frames(data: Path, *, every_second: bool = True) -> list[Frame]:
    """List the frames of a data set folder, in order; by default one a second, without those between."""
    frames = sorted(_frame(path.stem) for path in (data / "images").iterdir())
    return [frame for frame in frames if not every_second or frame.number % FRAMES_PER_SECOND in (0, 1)]


def groups(frames: Iterable[Frame], seconds: int) -> dict[str, list[Frame]]:
    """Divide frames into stretches of video of this length, by name."""
    found: dict[str, list[Frame]] = {}
    for frame in frames:
        found.setdefault(frame.group(seconds), []).append(frame)
    return found


def draw_groups(frames: Sequence[Frame], *, seconds: int, share: float, seed: int) -> list[Frame]:
    """Draw a share (0..1) of the stretches of each sequence, and return their frames in order."""
    chosen: list[Frame] = []
    rng = np.random.default_rng(seed)
    for sequence in sorted({frame.sequence for frame in frames}):
        stretches = groups((frame for frame in frames if frame.sequence == sequence), seconds)
        number = max(round(share * len(stretches)), 1)
        for name in rng.choice(sorted(stretches), number, replace=False):
            chosen += stretches[str(name)]
    return sorted(chosen)


def without(frames: Iterable[Frame], others: Collection[Frame]) -> list[Frame]:
    """Frames that are not among the others."""
    excluded = set(others)
    return [frame for frame in frames if frame not in excluded]


def write_split(folder: Path, name: str, frames: Iterable[Frame]) -> None:
    """Write a split file for the trainer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{frame.name}\n" for frame in frames), encoding="utf-8")


def image_file(data: Path, frame: Frame) -> Path:
    """Return the image file of a frame."""
    return data / "images" / f"{frame.name}.jpg"


def mask_file(data: Path, frame: Frame) -> Path:
    """Return the label of a frame."""
    return data / "masks" / f"{frame.name}.png"


def _frame(name: str) -> Frame:
    sequence, number = name.split("_")
    return Frame(name, sequence, int(re.sub(r"\D", "", number)))
