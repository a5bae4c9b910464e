"""`/v1/classes`: the class list of the service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.auth import caller_name, needs
from service.api.dependencies import StateOf
from service.api.docs.problem_docs import problem_docs
from service.classes.class_list import ClassList
from service.classes.class_names import MAX_CLASSES
from service.classes.label_counts import Labelled, count_uncounted, read_labelled
from service.classes.list_change import WantedClass, WantedList
from service.errors import BadInput, BundleInvalid, ClassesChanged, ClassesInvalid, ClassesNotFound, NoModel
from service.state import State
from service.storage.tables import ClassListRow

# Any valid key may read the classes: clients that segment and label need them.
router = APIRouter(prefix="/v1/classes", tags=["classes"], dependencies=[needs()])

Channel = Annotated[int, Field(ge=0, le=255)]
Color = Annotated[list[Channel], Field(min_length=3, max_length=3, description="RGB, 0..255")]


class ClassOut(BaseModel):
    """A class of the list, with the labels of the pool that show it."""

    id: int = Field(description="its value in masks: its position")
    identity: int = Field(description="the same in all versions of the list")
    name: str
    color: Color
    labels: int = Field(description="labels that show it, for training and validation")
    pixels: int = Field(description="their pixels")


class SetAsideOut(BaseModel):
    """Labels of a class that the present list has no more: their pixels are ignored."""

    model_config = ConfigDict(from_attributes=True)

    version: int = Field(description="version of the list under which the labels were made")
    identity: int | None = Field(description="null: an id that was no class of that version")
    name: str = Field(description="in that version")
    labels: int
    pixels: int


class ClassesOut(BaseModel):
    """A version of the class list."""

    version: int
    created_at: datetime
    key_name: str | None = Field(description="name of the key of the person who wrote it; null: the service did")
    model: str | None = Field(description="the model version from which it was taken; null: a person wrote it")
    ignore_index: int = Field(description="value in masks of pixels without a label")
    classes: list[ClassOut]
    changes: dict[str, Any] = Field(
        description="how it came from the version before, by name: `renamed`, `recoloured`, `added`, `merged`, "
        "`retired`, `restored`"
    )
    set_aside: list[SetAsideOut] = Field(description="labels that are ignored, by class; of the present version only")
    uncounted_labels: int = Field(
        description="labels of a former version of the service that are in no count yet: the worker counts them"
    )


class ClassIn(BaseModel):
    """A class of a new list."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="1 to 64 characters, unique; a class keeps its identity with its name")
    color: Color | None = Field(default=None, description="RGB, 0..255, unique; null: as before, or drawn")
    identity: int | None = Field(
        default=None,
        description="identity of the class that it is, under whatever name before, or that was retired; null: the "
        "class of the present list with this name, or a new one",
    )


class ClassesIn(BaseModel):
    """A new class list, and what became of the classes that it lacks. Their order gives the ids in masks."""

    model_config = ConfigDict(extra="forbid")

    derived_from: int | None = Field(
        default=None,
        ge=0,
        description="version from which the list was made, 0 if there is none yet; or send it as `If-Match`",
    )
    classes: list[ClassIn] = Field(min_length=1, max_length=MAX_CLASSES)
    renamed: dict[str, str] = Field(default_factory=dict, description="new name by old name; labels keep the class")
    merged: dict[str, str] = Field(
        default_factory=dict, description="by old name, the class of the new list of which it becomes a part"
    )
    retired: list[str] = Field(default_factory=list, description="old names; their labelled pixels are ignored")


ETAG: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "the version, for If-Match", "schema": {"type": "string"}}}}
}


@router.get("", responses=ETAG | problem_docs(NoModel, BundleInvalid, ClassesNotFound))
def get_classes(
    state: StateOf,
    response: Response,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Default: the present version")] = None,
) -> ClassesOut:
    """Get the class list: ids, names and colours of labels, and how many labels show each class.

    The first list has the classes of the active model. Masks of a model have the ids of that model
    (GET /v1/models/VERSION), under the names of this list.
    """
    present = state.models.classes.present()
    row = state.models.classes.lists.row(present.version if version is None else version)
    response.headers["ETag"] = f'"{row.version}"'
    return _out(state, row)


@router.put(
    "",
    dependencies=[needs("admin")],
    responses=ETAG | problem_docs(BadInput, BundleInvalid, ClassesInvalid, ClassesChanged),
)
def put_classes(
    state: StateOf,
    request: Request,
    response: Response,
    wanted: ClassesIn,
    if_match: Annotated[str | None, Header(description='The version from which the list was made, as `"3"`')] = None,
) -> ClassesOut:
    """Replace the class list. Names and colours of models change at once; classes that a model lacks need a run.

    Classes may be added, renamed, recoloured and moved; one that the new list lacks must be renamed, merged or retired.
    """
    classes = [WantedClass(name=c.name, color=_color(c.color), identity=c.identity) for c in wanted.classes]
    made = state.models.classes.change(
        WantedList(classes=classes, renamed=wanted.renamed, merged=wanted.merged, retired=wanted.retired),
        _derived_from(wanted.derived_from, if_match),
        caller_name(request),
    )
    state.active_model.follow_classes()
    response.headers["ETag"] = f'"{made.version}"'
    return _out(state, state.models.classes.lists.row(made.version))


def _derived_from(version: int | None, if_match: str | None) -> int:
    if if_match is None:
        if version is None:
            raise BadInput(
                "The list does not say from which version it was made: GET /v1/classes, and send its `version` as "
                "`derived_from` or `If-Match`."
            )
        return version
    tag = if_match.strip().removeprefix("W/").strip('"')
    if not tag.isascii() or not tag.isdigit() or len(tag) > 9 or version not in (None, int(tag)):
        raise BadInput(f"If-Match is {if_match!r}: send the `version` of GET /v1/classes, and no other `derived_from`.")
    return int(tag)


def _color(color: list[int] | None) -> tuple[int, int, int] | None:
    return None if color is None else (color[0], color[1], color[2])


def _out(state: State, row: ClassListRow) -> ClassesOut:
    history = state.models.classes.history()
    listed, present = history.version(row.version), history.present
    with state.database.read() as session:
        found, uncounted = read_labelled(session, history), count_uncounted(session)
    return ClassesOut(
        version=row.version,
        created_at=row.created_at,
        key_name=row.key_name,
        model=row.model,
        ignore_index=listed.ignore_index,
        classes=_classes(listed, present, found),
        changes=row.changes,
        set_aside=[SetAsideOut.model_validate(each) for each in found.set_aside] if listed is present else [],
        uncounted_labels=uncounted,
    )


def _classes(listed: ClassList, present: ClassList, found: Labelled) -> list[ClassOut]:
    counts = {identity: (found.labels[i], found.pixels[i]) for identity, i in present.ids.items()}
    return [
        ClassOut(
            id=position,
            identity=each.identity,
            name=each.name,
            color=list(each.color),
            labels=counts.get(each.identity, (0, 0))[0],
            pixels=counts.get(each.identity, (0, 0))[1],
        )
        for position, each in enumerate(listed.classes)
    ]
