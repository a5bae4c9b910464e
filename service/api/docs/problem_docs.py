"""Document errors in OpenAPI: `problem_docs` those of one route, `document_errors` those that routes share."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from service.api.problems import MEDIA_TYPE, in_protocol
from service.errors import BodyTooLarge, MaskloopError, StorageFailed, StorageUnwritable

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(description="urn:maskloop:problem:SLUG; stable")
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do about it")


class ErrorOut(BaseModel):
    """Body of every error under /v2."""

    error: str = Field(description="what is wrong and what to do about it")


RETRY = {"Retry-After": {"description": "seconds, if waiting helps", "schema": {"type": "integer", "minimum": 0}}}
CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750", "schema": {"type": "string"}}}
HEADERS: dict[int, dict[str, Any]] = {401: CHALLENGE, 403: CHALLENGE, 429: RETRY, 503: RETRY}

AUTH_ERRORS = {
    401: "No key was sent, or it is not valid",
    403: "The key lacks the scope, or a page of another site sent the request",
    429: "The rate limit is exceeded",
}
INTERNAL_ERROR = {500: f"{MaskloopError.title} ({MaskloopError.slug})"}
BODY_ERROR = {413: f"{BodyTooLarge.title} ({BodyTooLarge.slug})"}
# Most calls read the database.
DATABASE_ERROR = {503: f"{StorageFailed.title} ({StorageFailed.slug})"}
WRITE_ERROR = {507: f"{StorageUnwritable.title} ({StorageUnwritable.slug})"}
WRITING, WRITES_NOTHING = {"post", "put", "delete"}, {"/v1/segment"}
# FastAPI's validation errors, as `problems.py` writes them.
PARAMETER_ERROR = {422: "The request is not valid (invalid-request)"}
# FastAPI's own, which are replaced.
FASTAPI_DESCRIPTION = "Validation Error"
FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")


def problem_docs(*errors: type[MaskloopError], path: str = "/v1") -> Responses:
    """Return the `responses` of a route that may raise these errors."""
    titles: dict[int, list[str]] = defaultdict(list)
    for error in dict.fromkeys(errors):
        titles[error.status].append(f"{error.title} ({error.slug})")
    return {status: _response(path, status, "; ".join(texts)) for status, texts in sorted(titles.items())}


def document_errors(app: FastAPI) -> None:
    """Add to the OpenAPI document the errors that all routes of a kind share."""
    make_document, lock = app.openapi, threading.Lock()
    completed: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal completed
        # FastAPI caches the document; no thread may see it before it is complete.
        with lock:
            document = make_document()
            if document is not completed:
                _complete(document)
                completed = document
            return document

    app.openapi = openapi  # type: ignore[method-assign]


def _response(path: str, status: int, description: str) -> dict[str, Any]:
    media_type, model = ("application/json", ErrorOut) if in_protocol(path) else (MEDIA_TYPE, Problem)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    response = {"description": description, "content": {media_type: {"schema": schema}}}
    return response | {"headers": HEADERS[status]} if status in HEADERS else response


def _complete(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_errors(path, method, operation)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({model.__name__: model.model_json_schema() for model in (Problem, ErrorOut)})
    for name in FASTAPI_SCHEMAS:
        schemas.pop(name, None)


def _add_errors(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    shared = INTERNAL_ERROR | (AUTH_ERRORS | DATABASE_ERROR if "security" in operation else {})
    if method in WRITING and not in_protocol(path) and path not in WRITES_NOTHING:
        shared |= WRITE_ERROR
    validated = responses.get("422", {}).get("description") == FASTAPI_DESCRIPTION
    shared |= PARAMETER_ERROR if validated or "parameters" in operation else {}
    shared |= BODY_ERROR if "requestBody" in operation else {}
    for status, text in shared.items():
        own = responses.get(str(status), {}).get("description", FASTAPI_DESCRIPTION)
        texts = [text] if own == FASTAPI_DESCRIPTION else [own] if text in own else [own, text]
        responses[str(status)] = _response(path, status, "; ".join(texts))
    operation["responses"] = dict(sorted(responses.items()))
