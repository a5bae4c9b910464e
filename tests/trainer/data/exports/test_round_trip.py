"""What `export-labels` writes, `import` reads: the same classes, splits and pixels."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.trainer.data.exports.labelled_folder import NAMES, SIZES, SPLITS, write_labelled
from trainer.data.exports.export_dataset import ExportOptions, export_dataset
from trainer.data.imports.import_options import ImportOptions
from trainer.data.imports.import_source import import_source
from trainer.data.readers.layouts import open_dataset


class Silent:
    def found(self, *_: object) -> None: ...

    def progress(self, *_: object) -> None: ...


@pytest.mark.parametrize("names", [NAMES, ("weed", "crop", "soil")], ids=["background", "no background"])
@pytest.mark.parametrize("form", ["folder", "cvat", "coco", "labelstudio", "huggingface"])
def test_import_reads_what_export_writes(tmp_path: Path, form: str, names: tuple[str, ...]) -> None:
    masks = write_labelled(root := tmp_path / "own", names=names)
    options = ExportOptions(form=form, progress=False)
    export_dataset(root, exported := tmp_path / f"{form}.zip", options, lambda _done, _total: None)
    rest: Literal["background", "ignored"] = "background" if names == NAMES else "ignored"
    import_source(exported, target := tmp_path / "again", ImportOptions(rest=rest, progress=False), Silent())
    found = open_dataset(target)
    assert sorted(found.taxonomy.names) == sorted(names)
    ids = np.array([*(found.taxonomy.names.index(name) for name in names), *[255] * (256 - len(names))])
    for split, listed in SPLITS.items():
        samples = {sample.name.removeprefix("unlabelled/"): sample for sample in found.split(split)}
        if form == "huggingface":  # rows have numbers there
            samples = dict(zip(sorted(listed), samples.values(), strict=True))
        assert sorted(samples) == sorted(listed)
        for name in set(listed) & set(masks):
            np.testing.assert_array_equal(found.read_mask(samples[name], SIZES[name]), ids[masks[name]])
