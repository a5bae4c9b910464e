"""Import a case with the command, and compare the masks with those expected, by the names of their classes."""

# H W pixels

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.trainer.data.imports.sdks.case import Case, read_case
from tests.trainer.data.imports.sdks.scene import CLASSES, Bits, Ids
from trainer.command_line import main
from trainer.data.dataset import EVERYTHING
from trainer.data.readers.layouts import open_dataset

NAMES = ("background", *CLASSES)
"""Of the ids in the expected masks."""


class Compared(NamedTuple):
    """What the command printed, and every difference of its data set from what the case expects."""

    output: str
    differences: list[str]


def compare(folder: Path, target: Path) -> Compared:
    """Import the source of a case to a new folder."""
    case, expected = read_case(folder)
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        code = main(["import", str(folder / "source"), "--out", str(target), *case.arguments])
    output = printed.getvalue()
    missing = [f"the report lacks {sentence!r}" for sentence in case.sentences if sentence not in output]
    if code:
        last = output.strip().splitlines()[-1]
        return Compared(last, missing if case.is_refused else [last])
    return Compared(output, missing + _mask_differences(case, expected, target))


def _mask_differences(case: Case, expected: dict[str, Ids], target: Path) -> list[str]:
    dataset = open_dataset(target)
    samples = {sample.image.stem: sample for sample in dataset.split(EVERYTHING) if dataset.has_mask(sample)}
    differences = []
    if samples.keys() != expected.keys():
        differences.append(f"masks of {sorted(samples)} instead of {sorted(expected)}")
    for stem in sorted(samples.keys() & expected.keys()):
        sample, ids_HW = samples[stem], expected[stem]
        found_HW = dataset.read_mask(sample, ids_HW.shape)
        names = dict(enumerate(dataset.taxonomy.names))
        wrong_HW = np.zeros(ids_HW.shape, dtype=np.bool_)
        for index in np.unique(found_HW):
            name = names.get(int(index), "ignored")
            as_ids = NAMES.index(name) if name in NAMES else 255
            wrong_HW |= (found_HW == index) & (ids_HW != as_ids)
        if case.border_px:
            wrong_HW &= ~_near_border(ids_HW, case.border_px)
        if wrong_HW.any():
            differences.append(f"{stem}: {wrong_HW.sum()} of {wrong_HW.size} pixels differ")
    return differences


def _near_border(ids_HW: Ids, pixels: int) -> Bits:
    """Pixels within a distance, in both directions, of a pixel of another class, bool [H, W]."""
    padded = np.pad(ids_HW, pixels, mode="edge")
    height, width = ids_HW.shape
    near_HW = np.zeros(ids_HW.shape, dtype=np.bool_)
    for down in range(2 * pixels + 1):
        for right in range(2 * pixels + 1):
            near_HW |= padded[down : down + height, right : right + width] != ids_HW
    return near_HW
