"""What the OpenAPI document says of guarded calls: how they are refused. The routes need not say it one by one."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.api.problems import MEDIA_TYPE

REFUSALS = {
    401: "No key was sent, or one that is not valid",
    403: "The key has not the scope, or a page of another site asks",
    429: "The key's rate is used up: `Retry-After` says for how long",
}
REFUSED = {
    str(status): {"description": text, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
    for status, text in REFUSALS.items()
}


def document_refusals(app: FastAPI) -> None:
    """Add them to every operation that names a way to show a key; those with a default for errors have said enough."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        for path in document["paths"].values():
            for operation in path.values():
                if "security" in operation and "default" not in operation["responses"]:
                    operation["responses"] = REFUSED | operation["responses"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
