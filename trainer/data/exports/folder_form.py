"""Our own form: images, masks of class ids, classes.toml, splits and groups.csv."""

import csv
import io

from trainer.data.classes_file import classes_text
from trainer.data.exports.exported_dataset import GROUPS, SPELLINGS, ExportedDataset, ExportedImage
from trainer.data.exports.mask_bytes import palette_png
from trainer.data.exports.output_sink import Sink


def write_folder(dataset: ExportedDataset, sink: Sink) -> None:
    """Write the data set."""
    taxonomy = dataset.taxonomy

    def convert(image: ExportedImage) -> bytes | None:
        mask_HW = dataset.mask(image)
        return None if mask_HW is None else palette_png(mask_HW, taxonomy.colors)

    for image, mask in dataset.each(convert):
        if mask is not None:
            sink.add(f"masks/{image.name}.png", mask)
        if dataset.with_images:
            sink.add(f"images/{image.file}", dataset.content(image))
    for split in SPELLINGS:
        if names := [image.name for image in dataset.in_split(split)]:
            sink.add(f"splits/{split}.txt", "".join(f"{name}\n" for name in names).encode())
    if groups := [(image.name, image.group) for image in dataset.images if image.group]:
        sink.add(GROUPS, groups_text(groups).encode())
    sink.add(
        "classes.toml", classes_text(taxonomy.names, taxonomy.colors, taxonomy.ignore_index, "export-labels").encode()
    )


def groups_text(groups: list[tuple[str, str]]) -> str:
    """The content of groups.csv: pairs of name and group."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("name", "group"), *groups])
    return text.getvalue()
