"""What an answer says about a label that was stored: its classes and their pixels."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.classes.class_list import ClassList
from service.storage.tables import Image


class LabelledClassOut(BaseModel):
    """A class that a label shows."""

    id: int = Field(description="in the list `classes_version`")
    name: str
    pixels: int
    fraction: float = Field(description="share of the image, 0..1")


class LabelOut(BaseModel):
    """A label that was stored."""

    classes: list[LabelledClassOut] = Field(description="the classes that it shows, by id")
    unlabelled_pixels: int = Field(description="pixels that are ignored")
    unlabelled_fraction: float = Field(description="their share of the image, 0..1")
    doubt: str | None = Field(
        default=None, description="what is odd about it, though it is stored, and what to do; null: nothing"
    )


def describe_label(image: Image, classes: ClassList) -> LabelOut:
    """Describe the label of an image, which was made under `classes`."""
    size = image.width * image.height
    pixels = {int(class_id): int(count) for class_id, count in (image.class_pixels or {}).items()}
    unlabelled = size - sum(pixels.values())
    return LabelOut(
        classes=[
            LabelledClassOut(id=i, name=classes.names[i], pixels=count, fraction=round(count / size, 6))
            for i, count in sorted(pixels.items())
        ],
        unlabelled_pixels=unlabelled,
        unlabelled_fraction=round(unlabelled / size, 6),
    )
