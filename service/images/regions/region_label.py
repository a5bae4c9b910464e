"""A label as JSON: polygons and run lengths, as COCO has them, each with the name of a class."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from service.errors import MaskInvalid

MAX_JSON_BYTES = 8 * 2**20
MAX_REGIONS = 10_000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FORMS = frozenset({"polygons", "run lengths", "numbers", "points", "text", "list"})
"""Names of the forms of a value, which pydantic puts into the place of an error."""

EXAMPLES: dict[str, Any] = {
    "polygons": {
        "summary": "Polygons; a pixel without a region is road",
        "value": {
            "regions": [{"class": "car", "segmentation": [[120.5, 80, 310, 80, 310, 190.5, 120.5, 190.5]]}],
            "rest": "road",
        },
    },
    "run lengths": {
        "summary": "COCO RLE, as pycocotools and POST /v1/segment write it, and uncompressed",
        "value": {
            "regions": [
                {"class": "road", "segmentation": {"size": [4, 6], "counts": "02203"}},
                {"class": "car", "segmentation": {"size": [4, 6], "counts": [9, 2, 2, 2, 9]}},
            ]
        },
    },
}

Number = Annotated[float, Field(allow_inf_nan=False)]
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]


def _form_of_points(value: Any) -> str:
    return "points" if isinstance(value, list) and value and isinstance(value[0], list) else "numbers"


def _form(value: Any) -> str:
    return "run lengths" if isinstance(value, dict) else "polygons"


Polygon = Annotated[
    Annotated[list[Number], Tag("numbers"), Field(description="x, y, x, y, ...")]
    | Annotated[list[Point], Tag("points"), Field(description="[x, y], [x, y], ...")],
    Discriminator(_form_of_points),
]


class RunLengths(BaseModel):
    """COCO's run-length encoding: lengths of runs outside and inside the region, column by column, outside first."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="height, width of the upright image")]
    counts: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[int], Tag("list")],
        Discriminator(lambda value: "text" if isinstance(value, str) else "list"),
    ] = Field(description="a list, or COCO's compressed string")


class Region(BaseModel):
    """Pixels of one class."""

    model_config = ConfigDict(extra="forbid", strict=True)

    class_name: str = Field(alias="class", description="name of a class of the list")
    segmentation: Annotated[
        Annotated[list[Polygon], Tag("polygons"), Field(min_length=1)] | Annotated[RunLengths, Tag("run lengths")],
        Discriminator(_form),
    ] = Field(description="as in COCO: a list of polygons, or run lengths. Coordinates are pixels of the upright image")
    even_odd: bool = Field(
        default=False,
        description="fill polygons by the even-odd rule, so that one inside another is a hole, as in the answers of "
        "POST /v1/segment; default: the region is all of them",
    )


class RegionLabel(BaseModel):
    """Regions in drawing order: a later one covers an earlier one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    regions: list[Region] = Field(max_length=MAX_REGIONS)
    rest: str | None = Field(
        default=None, description="class of the pixels that no region covers; null: they have no label"
    )
    pixel_centres: bool = Field(
        default=False,
        description="coordinates of polygons are centres of pixels, and their outline belongs to the region, as in "
        "labelme and OpenCV; default: distances from the upper left corner, as in COCO",
    )


def is_region_label(data: bytes) -> bool:
    """Whether an uploaded label is JSON; otherwise it is a PNG, or neither."""
    return data[:64].removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"[")


def read_region_label(data: bytes) -> RegionLabel:
    """Read a label from JSON. Raises MaskInvalid, which names a wrong region by its index, from 0."""
    if len(data) > MAX_JSON_BYTES:
        raise MaskInvalid(
            f"The JSON has {len(data)} bytes and may have {MAX_JSON_BYTES}: send compressed run lengths, or a PNG."
        )
    try:
        return RegionLabel.model_validate_json(data.removeprefix(BYTE_ORDER_MARK))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise MaskInvalid(f"The JSON of the label cannot be used: {_place(first['loc'])}{first['msg']}.") from None


def region_schema() -> dict[str, Any]:
    """Return the JSON schema of a label, without references."""
    schema = RegionLabel.model_json_schema(by_alias=True)
    return dict(_inlined(schema, schema.pop("$defs")))


def _place(location: tuple[int | str, ...]) -> str:
    """Write a place as JSON paths do, without the names of forms: `regions[3].segmentation[0]`."""
    path = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in location if each not in FORMS)
    return f"`{path.removeprefix('.')}`: " if path else ""


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}
