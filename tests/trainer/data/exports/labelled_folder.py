"""Write a small data set in our own form, and know its masks."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.data.classes_file import write_classes
from trainer.data.mask_file import write_mask

Masks = dict[str, npt.NDArray[np.int64]]
"""Class ids and ignore_index by the name of the image, [H, W]."""

SIZES = {"b/photo 1": (30, 40), "a": (21, 17), "c": (300, 401), "d": (9, 9)}
"""Height and width by name. `d` has no label."""
SPLITS = {"labelled": ["b/photo 1", "c"], "val": ["a"], "unlabelled": ["d"]}
GROUP = {"a": "street, 2"}
NAMES = ("background", "sky & <sea>", "road")
COLORS = ((9, 9, 9), (0, 0, 0), (0, 0, 255))


def write_labelled(
    root: Path, *, names: tuple[str, ...] = NAMES, ignore_index: int = 255, ignored: bool = True
) -> Masks:
    """Write the data set; return its masks. With `ignored`, one of them has ignored pixels."""
    rng = np.random.default_rng(0)
    masks: Masks = {}
    colors = tuple(COLORS[index] if index < 3 else (index // 256, index % 256, 1) for index in range(len(names)))
    for part in ("images", "masks", "splits"):
        for folder in (root / part, root / part / "b"):
            folder.mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / f"images/{name}.png")
        if name == "d":
            continue
        blocks = rng.integers(0, len(names), (-(-height // 7), -(-width // 5))).repeat(7, 0).repeat(5, 1)
        masks[name] = blocks[:height, :width].astype(np.int64)
        if ignored and name == "c":
            masks[name][:, :3] = ignore_index
        stored: npt.NDArray[np.uint8 | np.uint16] = masks[name].astype(np.uint8 if ignore_index < 256 else np.uint16)
        write_mask(root / f"masks/{name}.png", stored, colors)
    write_classes(root / "classes.toml", names, colors, ignore_index, "a test")
    for split, listed in SPLITS.items():
        (root / f"splits/{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    lines = "".join(f'{name},"{group}"\n' for name, group in GROUP.items())
    (root / "groups.csv").write_text(f"name,group\n{lines}")
    return masks
