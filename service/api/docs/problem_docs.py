"""How OpenAPI shows errors: which statuses a call may answer with, and what their bodies hold, under /v1 and /v2."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from service.api.problems import MEDIA_TYPE, PROTOCOL
from service.errors import MaskloopError

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(description="urn:maskloop:problem:SLUG; stable")
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do about it, for a person")


class ErrorOut(BaseModel):
    """What every error under /v2 is."""

    error: str = Field(description="what is wrong and what to do about it")


@dataclass(frozen=True, slots=True)
class Form:
    """How errors are written, for clients of one kind."""

    media_type: str
    model: type[BaseModel]

    def response(self, status: int, description: str) -> dict[str, Any]:
        """One status, as OpenAPI shows it."""
        schema = {"$ref": f"#/components/schemas/{self.model.__name__}"}
        shown = {"description": description, "content": {self.media_type: {"schema": schema}}}
        return shown | {"headers": HEADERS[status]} if status in HEADERS else shown


FORMS = (Form(MEDIA_TYPE, Problem), Form("application/json", ErrorOut))

# FastAPI's own refusal of parameters, as `problems.py` writes it.
INVALID_REQUEST = "The request is not valid (invalid-request)"
RETRY = {"Retry-After": {"description": "seconds, where waiting helps", "schema": {"type": "integer", "minimum": 0}}}
CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750", "schema": {"type": "string"}}}
HEADERS: dict[int, dict[str, Any]] = {401: CHALLENGE, 403: CHALLENGE, 429: RETRY, 503: RETRY}


def form_of(path: str) -> Form:
    """How the errors of a path are written: the choice that `problems.problem` makes."""
    return FORMS[path == PROTOCOL or path.startswith(f"{PROTOCOL}/")]


def problem_docs(*errors: type[MaskloopError], path: str = "/v1") -> Responses:
    """The `responses` of a route: these errors. What all calls of its kind may answer with, `document_errors` adds."""
    titles: dict[int, list[str]] = defaultdict(list)
    for error in errors:
        titles[error.status].append(f"{error.title} ({error.slug})")
    form = form_of(path)
    return {status: form.response(status, "; ".join(said)) for status, said in sorted(titles.items())}
