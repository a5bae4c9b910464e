"""Calls of `/v1/classes`: the class list of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.client.answers import ServiceClasses
from service.client.call import Call, Request, json_body, model_call

CLASSES = "/v1/classes"


def get_classes(*, version: int | None = None) -> Call[ServiceClasses]:
    """Get the class list: ids, names and colours of labels. `version`: an earlier one; None: the present one."""
    return model_call(ServiceClasses, Request(method="GET", path=CLASSES, params={"version": version}, repeatable=True))


def put_classes(
    classes: Sequence[Mapping[str, Any]],
    derived_from: int,
    *,
    renamed: Mapping[str, str] | None = None,
    merged: Mapping[str, str] | None = None,
    retired: Sequence[str] = (),
) -> Call[ServiceClasses]:
    """Replace the class list.

    Args:
        classes: The new list, each with `name` and perhaps `color` (RGB); an id in labels is a position.
        derived_from: Version from which the list was made; 0: there is none yet. Conflict if there is a newer one.
        renamed: New name by old name.
        merged: Class of the new list by old name.
        retired: Old names, whose labelled pixels are ignored.
    """
    body = {"derived_from": derived_from, "classes": [dict(each) for each in classes]}
    content, headers = json_body(
        body | {"renamed": dict(renamed or {}), "merged": dict(merged or {}), "retired": list(retired)}
    )
    return model_call(ServiceClasses, Request(method="PUT", path=CLASSES, content=content, headers=headers))
