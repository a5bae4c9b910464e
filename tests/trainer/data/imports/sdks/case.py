"""A case of the matrix: a data set in a tool's format, and the masks that its import must give.

CASE/case.json, CASE/source/..., CASE/expected/STEM.png
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trainer.data.imports.sdks.scene import Ids, Picture


@dataclass(frozen=True, slots=True)
class Case:
    """One form of one tool.

    Attributes:
        tool: name of the package that wrote it, and its version.
        form: what the tool calls the format.
        arguments: arguments of the import command besides SOURCE and --out.
        border_px: ids may differ up to this distance from the border of a region, for slanted sides.
        sentences: parts of the report that a person must read.
        is_refused: whether the import ends with an error, which has the sentences.
    """

    tool: str
    form: str
    arguments: Sequence[str] = ()
    border_px: int = 0
    sentences: Sequence[str] = ()
    is_refused: bool = False

    def write(self, source: Path, expected: Mapping[str, Ids]) -> None:
        """Write case.json and the expected id masks, by stem of the image, beside the folder `source`."""
        folder = source.parent
        (folder / "expected").mkdir()
        for stem, ids_HW in expected.items():
            Image.fromarray(ids_HW).save(folder / "expected" / f"{stem}.png")
        (folder / "case.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_case(folder: Path) -> tuple[Case, dict[str, Ids]]:
    """A case, and its expected id masks by stem of the image."""
    case = Case(**json.loads((folder / "case.json").read_text(encoding="utf-8")))
    return case, {path.stem: np.asarray(Image.open(path)) for path in sorted((folder / "expected").glob("*.png"))}


def new_source(root: Path, name: str, photographs: Sequence[Picture] = (), folder: str = "") -> Path:
    """An empty folder ROOT/NAME/source, with photographs in a folder of it."""
    source = root / name / "source"
    shutil.rmtree(source.parent, ignore_errors=True)
    source.mkdir(parents=True)
    for picture in photographs:
        picture.save(source / folder / picture.file_name)
    return source


def scene_masks(pictures: Sequence[Picture]) -> dict[str, Ids]:
    """Id masks of pictures by stem."""
    return {picture.stem: picture.ids() for picture in pictures}
