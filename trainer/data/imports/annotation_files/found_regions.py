"""Regions of annotation files: their pixels are computed when the mask is written, and only one region's at a time."""

# H W pixels

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainer.data.decode import ImageError
from trainer.data.imports.annotation_files.checked_values import ContentError
from trainer.data.imports.drawing.drawn_regions import OVERLAP, UNUSABLE, DrawnRegions, Region
from trainer.data.imports.drawing.rasterise import Shape, ShapeError
from trainer.data.imports.source.annotated import Ids, Size
from trainer.data.imports.source.loss_report import Losses

Build = Callable[[Size], Shape]
"""A shape in an image of (height, width) pixels. Raises ShapeError, ContentError or ImageError."""

NO_AREA = "a shape of type {!r} has no area and is not drawn"
NOT_READ = "an annotation of type {!r} is not read"


@dataclass(frozen=True, slots=True)
class FoundRegion:
    """A region of an annotation file.

    Attributes:
        class_name: as the file has it.
        name: what messages call it: "crack 3".
        build: its shape.
    """

    class_name: str
    name: str
    build: Build


@dataclass(frozen=True, slots=True)
class RegionsLabel:
    """The label of an image: regions in drawing order.

    Attributes:
        name: what messages call the image.
        regions: the lowest first.
        ids: position of each class, by name.
        size: height and width that the annotation file states.
        overlap: the message about overlapping regions.
    """

    name: str
    regions: Sequence[FoundRegion]
    ids: Mapping[str, int]
    size: Size | None = None
    overlap: str = OVERLAP

    def draw(self, size: Size, losses: Losses) -> Ids:
        """See Label. Raises ImageError if the annotations belong to an image of another size."""
        if self.size and self.size != size:
            raise ImageError(f"{self.name}: {_describe_sizes(self.size, size)}")
        return DrawnRegions(self.name, self._built(size, losses), overlap=self.overlap).draw(size, losses)

    def _built(self, size: Size, losses: Losses) -> Iterator[Region]:
        for each in self.regions:
            try:
                shape = each.build(size)
            except (ShapeError, ContentError, ImageError) as error:
                example = f"{self.name}: {each.name} {error}"
                losses.add("unusable region", UNUSABLE, example, remedy="correct it in the tool")
                continue
            yield Region(shape, self.ids[each.class_name], each.name)


def report_shape(kind: str, example: str, losses: Losses, *, known: bool) -> None:
    """Add a shape that is not drawn to the losses; `known`: it is known to have no area."""
    message = (NO_AREA if known else NOT_READ).format(kind)
    losses.add("shape without area" if known else "unknown shape", message, example)


def _describe_sizes(annotated: Size, image: Size) -> str:
    found, wanted = (f"{width}x{height}" for height, width in (annotated, image))
    if annotated == image[::-1]:
        return (
            f"was annotated with {found} pixels and its upright image has {wanted} (width x height); annotate the "
            "image as viewers show it, or remove its EXIF orientation"
        )
    return f"was annotated with {found} pixels and has {wanted} (width x height); use the image that was annotated"
