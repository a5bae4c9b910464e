"""What the OpenAPI document says of all calls of a kind, so that their routes need not: refusals and faults."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import FastAPI

from service.api.docs.problem_docs import FORMS, INVALID_REQUEST, form_of
from service.errors import BodyTooLarge, MaskloopError

# Of calls that name a way to show a key.
GUARDED = {
    401: "No key was sent, or one that is not valid",
    403: "The key has not the scope, or a page of another site asks",
    429: "The key's rate is used up",
}
FAULT = {500: f"{MaskloopError.title} ({MaskloopError.slug})"}
TOO_LARGE = {413: f"{BodyTooLarge.title} ({BodyTooLarge.slug})"}
INVALID = {422: INVALID_REQUEST}
# FastAPI's words for errors that leave in another form here.
FASTAPI_SAYS = "Validation Error"
NOT_OURS = ("HTTPValidationError", "ValidationError")


def document_errors(app: FastAPI) -> None:
    """Let the OpenAPI document of an app say of every call what the routes have left unsaid."""
    plain, making = app.openapi, threading.Lock()
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        # FastAPI keeps what it has made, and nobody may see it before it is complete.
        with making:
            document = plain()
            if document is not completed:
                _complete(document)
                completed = document
            return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _say_errors(path, operation)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({form.model.__name__: form.model.model_json_schema() for form in FORMS})
    for name in NOT_OURS:
        schemas.pop(name, None)


def _say_errors(path: str, operation: dict[str, Any]) -> None:
    said, form = operation["responses"], form_of(path)
    every = FAULT | (GUARDED if "security" in operation else {})
    every |= INVALID if "parameters" in operation else {}
    every |= TOO_LARGE if "requestBody" in operation else {}
    for status, text in every.items():
        own = said.get(str(status), {}).get("description", FASTAPI_SAYS)
        texts = [text] if own == FASTAPI_SAYS else [own] if text in own else [own, text]
        said[str(status)] = form.response(status, "; ".join(texts))
    operation["responses"] = dict(sorted(said.items()))
